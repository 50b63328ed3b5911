//! The server's binary as far as the runtime's tests need it: `shim DIR`, and a server that starts one instance and
//! then only lives: `serve ROOT SPEC`.
#![allow(clippy::print_stdout, reason = "it is how the test hears that the instance runs")]

use std::path::{Path, PathBuf};

use andon_runtime::{ProcessRuntime, Spec};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["shim", dir] => std::process::exit(andon_runtime::shim_main(Path::new(dir))),
        ["serve", root, spec] => serve(root, spec).expect("the instance starts"),
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
