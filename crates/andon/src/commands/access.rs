//! Logging in, projects, accounts, tokens.

use clap::{Args, Subcommand};
use serde_json::json;

use super::print_json;
use crate::cli::Common;
use crate::client::{self, Client, Failure};
use crate::say::say;

/// Options of `andon login`.
#[derive(Debug, Args)]
pub struct Login {
    /// The server.
    #[arg(default_value = "http://127.0.0.1:7070")]
    server: String,
    /// The secret of the owner link (the part after `once=`), or the whole link.
    #[arg(long)]
    once: Option<String>,
}

/// Keeps a token for this server.
pub fn login(common: &Common, options: Login) -> Result<(), Failure> {
    let server = options.server.trim_end_matches('/').to_owned();
    let token = match (&common.token, options.once) {
        (_, Some(once)) => by_link(&server, once.rsplit("once=").next().unwrap_or_default())?,
        (Some(token), None) => token.clone(),
        (None, None) => {
            eprint!("token for {server}: ");
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map_err(|error| error.to_string())?;
            line.trim().to_owned()
        }
    };
    let client = Client::with(client::Login { server, token });
    let me = client.get("/api/v1/me")?;
    client::keep(&client.login)?;
    if common.json {
        print_json(
            &json!({ "server": client.login.server, "user": me["user"], "token": client.login.token }),
        );
    } else {
        say!("● logged in to {} as {}", client.login.server, me["user"].as_str().unwrap_or_default());
    }
    Ok(())
}

fn by_link(server: &str, once: &str) -> Result<String, Failure> {
    let door = Client::with(client::Login { server: server.to_owned(), token: once.to_owned() });
    let session = door.post("/api/v1/enter", &json!({ "once": once }))?;
    let token = session["token"].as_str().unwrap_or_default().to_owned();
    let door = Client::with(client::Login { server: server.to_owned(), token });
    let mine = door.get("/api/v1/me")?;
    let issued = door.post("/api/v1/tokens", &json!({ "name": "command line", "roles": mine["roles"] }))?;
    Ok(issued["token"].as_str().unwrap_or_default().to_owned())
}

/// `andon project …`.
#[derive(Debug, Subcommand)]
pub enum Project {
    /// All projects.
    List,
    /// A new, empty one.
    Create {
        /// Its name.
        name: String,
        /// The branch that changes land on.
        #[arg(long, default_value = "main")]
        trunk: String,
    },
}

/// Does it.
pub fn project(common: &Common, project: Project) -> Result<(), Failure> {
    let client = Client::new(common.server.clone(), common.token.clone())?;
    match project {
        Project::List => {
            let all = client.get("/api/v1/projects")?;
            if common.json {
                print_json(&all);
            } else {
                for one in all.as_array().into_iter().flatten() {
                    say!(
                        "{}  {}",
                        one["name"].as_str().unwrap_or_default(),
                        one["trunk"].as_str().unwrap_or_default()
                    );
                }
            }
        }
        Project::Create { name, trunk } => {
            let made = client.post("/api/v1/projects", &json!({ "name": name, "trunk": trunk }))?;
            if common.json {
                print_json(&made);
            } else {
                say!("● {name} is there: git remote add andon {}/{name}.git", client.login.server);
            }
        }
    }
    Ok(())
}

/// `andon user …`.
#[derive(Debug, Subcommand)]
pub enum User {
    /// All accounts.
    List,
    /// Create an account or change its roles.
    Set {
        /// Its name.
        name: String,
        /// A role: viewer, developer, deployer, releaser, owner. Several times for several.
        #[arg(long = "role", required = true)]
        roles: Vec<String>,
        /// Read a password from standard input.
        #[arg(long)]
        password: bool,
    },
}

/// Does it.
pub fn user(common: &Common, user: User) -> Result<(), Failure> {
    let client = Client::new(common.server.clone(), common.token.clone())?;
    match user {
        User::List => {
            let all = client.get("/api/v1/users")?;
            if common.json {
                print_json(&all);
                return Ok(());
            }
            for one in all.as_array().into_iter().flatten() {
                let roles: Vec<&str> =
                    one["roles"].as_array().into_iter().flatten().filter_map(|r| r.as_str()).collect();
                say!("{}  {}", one["name"].as_str().unwrap_or_default(), roles.join(", "));
            }
            Ok(())
        }
        User::Set { name, roles, password } => {
            let mut body = json!({ "name": name, "roles": roles });
            if password {
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).map_err(|error| error.to_string())?;
                body["password"] = line.trim_end_matches('\n').into();
            }
            client.post("/api/v1/users", &body)?;
            say!("● {name} is {}", roles.join(", "));
            Ok(())
        }
    }
}

/// `andon token …`.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// A new token; it is shown once.
    Create {
        /// What it is for.
        name: String,
        /// For whom; default: you.
        #[arg(long)]
        user: Option<String>,
        /// At most these roles.
        #[arg(long = "role", required = true)]
        roles: Vec<String>,
        /// Worth nothing after this: 30d.
        #[arg(long)]
        lasts: Option<String>,
    },
    /// Make a token worth nothing; `andon user list --json` shows the digests.
    Revoke {
        /// sha256:…
        digest: String,
    },
}

/// Does it.
pub fn token(common: &Common, token: Token) -> Result<(), Failure> {
    let client = Client::new(common.server.clone(), common.token.clone())?;
    match token {
        Token::Create { name, user, roles, lasts } => {
            let made = client.post(
                "/api/v1/tokens",
                &json!({ "user": user, "name": name, "roles": roles, "lasts": lasts }),
            )?;
            match common.json {
                true => print_json(&made),
                false => say!("{}", made["token"].as_str().unwrap_or_default()),
            }
        }
        Token::Revoke { digest } => {
            client.delete(&format!("/api/v1/tokens/{digest}"))?;
            say!("● the token is worth nothing now");
        }
    }
    Ok(())
}
