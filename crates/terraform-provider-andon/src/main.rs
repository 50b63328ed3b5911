//! `terraform-provider-andon`: environments, scale and flags of an Andon server as resources of Terraform. Started by Terraform, never by
//! hand. It holds nothing: each resource is read from the server, and changed through its API.

mod api;
mod data;
mod protocol;
mod provider;
mod resources;
mod schema;
mod serve;
mod trouble;
mod value;

use std::process::ExitCode;

/// What Terraform sets so that a provider knows who started it; no secret. Source: `Handshake` of hashicorp/terraform-plugin-go.
const COOKIE: &str = "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2";

fn main() -> ExitCode {
    if std::env::var("TF_PLUGIN_MAGIC_COOKIE").as_deref() != Ok(COOKIE) {
        eprintln!(
            "■ terraform-provider-andon {} is started by Terraform or OpenTofu",
            env!("CARGO_PKG_VERSION")
        );
        eprintln!(
            "hint: name it in `required_providers`, and its directory in `dev_overrides` or a `filesystem_mirror`"
        );
        return ExitCode::FAILURE;
    }
    let spoken = std::env::var("PLUGIN_PROTOCOL_VERSIONS").unwrap_or_default();
    if !spoken.is_empty() && !spoken.split(',').any(|version| version.trim() == "6") {
        eprintln!("■ this Terraform speaks the plugin protocols {spoken}, and the provider speaks 6");
        eprintln!("hint: Terraform 1.0 or later does");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let served = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            // Ctrl-C reaches everybody at the terminal: Terraform decides what ends.
            let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
            tokio::spawn(async move { while interrupts.recv().await.is_some() {} });
            serve::serve().await
        })
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("■ the provider cannot serve: {error}");
            ExitCode::FAILURE
        }
    }
}
