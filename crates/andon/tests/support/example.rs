//! An example of the repository, followed exactly as its README says.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Server, andon};

/// A page whose commands are typed by the test.
pub struct Example<'a> {
    server: &'a Server,
    room: PathBuf,
    page: String,
}

impl<'a> Example<'a> {
    /// The example of this name, as a reader sees it who stands in the repository's folder.
    pub fn open(server: &'a Server, name: &str) -> Example<'a> {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").canonicalize().unwrap();
        let room = server.room.path().to_owned();
        std::os::unix::fs::symlink(&examples, room.join("examples")).unwrap();
        let page = std::fs::read_to_string(examples.join(name).join("README.md")).unwrap();
        Example { server, room, page }
    }

    /// Its blocks of commands, in order. The first starts the server, which a test has done already.
    pub fn blocks(&self) -> Vec<&str> {
        let blocks = self.page.split("```sh\n").skip(1);
        let all: Vec<&str> =
            blocks.filter_map(|block| block.split_once("```")).map(|(commands, _)| commands).collect();
        assert_eq!(all[0].trim(), "andon serve");
        all[1..].to_vec()
    }

    /// What the commands print; all of them succeed.
    pub fn run(&self, commands: &str) -> String {
        // The server of a test listens elsewhere.
        let commands = commands.replace(":7080/", &format!(":{}/", self.server.router));
        let bin = Path::new(&andon()).parent().unwrap().to_owned();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let shop = self.room.join("shop");
        let dir = if shop.exists() { shop } else { self.room.clone() };
        let mut shell = Command::new("sh");
        shell.args(["-ec", &commands]).current_dir(dir).env("PATH", path);
        shell.env("ANDON_SERVER", self.server.url()).env("ANDON_TOKEN", &self.server.token);
        shell.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
        for who in ["AUTHOR", "COMMITTER"] {
            shell.env(format!("GIT_{who}_NAME"), "Ann").env(format!("GIT_{who}_EMAIL"), "ann@example.com");
        }
        let out = shell.output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{commands}{said}{}", self.server.stderr());
        said
    }
}
