//! The server's binary as far as the runtime's tests need it: `shim DIR`, and a server that starts one instance and
//! then only lives: `serve ROOT SPEC`; or one that starts, stops and removes instances until it is killed: `churn ROOT SPEC TAR`.
#![allow(clippy::print_stdout, reason = "it is how the test hears that the instance runs")]

use std::path::{Path, PathBuf};

use andon_runtime::{ProcessRuntime, Spec};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["shim", dir] => std::process::exit(andon_runtime::shim_main(Path::new(dir))),
        ["serve", root, spec] => serve(root, spec).expect("the instance starts"),
        ["churn", root, spec, tar] => churn(root, spec, tar).expect("instances come and go"),
        _ => std::process::exit(64),
    }
}

fn serve(root: &str, spec: &str) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = ProcessRuntime::new(PathBuf::from(root), std::env::current_exe()?)?;
    let spec: Spec = serde_json::from_str(spec)?;
    runtime.start(&spec)?;
    println!("started");
    loop {
        std::thread::park();
    }
}

/// Several at a time, so that a kill finds each of them at another point.
fn churn(root: &str, spec: &str, tar: &str) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = ProcessRuntime::new(PathBuf::from(root), std::env::current_exe()?)?;
    let spec: Spec = serde_json::from_str(spec)?;
    runtime.means();
    println!("started");
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4)
            .map(|n| {
                scope.spawn({
                    let (runtime, spec) = (&runtime, &spec);
                    move || come_and_go(runtime, spec, n, tar)
                })
            })
            .collect();
        all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| Err("it panicked".into())))
    })?;
    Ok(())
}

fn come_and_go(runtime: &ProcessRuntime, spec: &Spec, n: usize, tar: &str) -> Result<(), String> {
    let spec = Spec { instance: format!("{}-{n}", spec.instance), ..spec.clone() };
    loop {
        let artifact = std::fs::File::open(tar).map_err(|error| error.to_string())?;
        runtime.prepare(&spec.instance, artifact).map_err(|error| error.to_string())?;
        runtime.start(&spec).map_err(|error| error.to_string())?;
        runtime.remove(&spec.instance).map_err(|error| error.to_string())?;
    }
}
