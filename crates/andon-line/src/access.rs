//! Accounts, tokens and roles as the server's stream tells them, and what follows for a caller. Hashes passwords; sends nothing.

use std::collections::{BTreeMap, BTreeSet};

use andon_model::event::{Event, Recorded, Role, TokenKind};
use andon_model::{Actor, Digest, Time, UserName};
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use serde::Serialize;

use crate::Refusal;

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// What it may do.
    pub roles: BTreeSet<Role>,
    /// Argon2id in PHC form; none: it has no password yet.
    pub password: Option<String>,
}

/// A secret that acts for a user. Only its digest is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Token {
    /// For whom.
    pub user: UserName,
    /// What its holder calls it.
    pub name: String,
    /// At most this, and at most what the user may.
    pub roles: BTreeSet<Role>,
    /// Worth nothing from then on.
    pub expires: Option<Time>,
    /// What it is used for.
    pub kind: TokenKind,
    /// When it was issued.
    pub issued: Time,
}

/// Whoever gives a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub user: UserName,
    /// What this caller may do.
    pub roles: BTreeSet<Role>,
    /// The digest of the token it came with.
    pub token: Option<Digest>,
    /// The kind of that token.
    pub kind: Option<TokenKind>,
}

impl Caller {
    /// Nothing is allowed that no role allows. Owner includes every role; every role includes viewer.
    pub fn may(&self, role: Role) -> Result<(), Refusal> {
        let has = |role| self.roles.contains(&role);
        if has(Role::Owner) || has(role) || (role == Role::Viewer && !self.roles.is_empty()) {
            return Ok(());
        }
        Err(Refusal::Forbidden(role))
    }

    /// As the journal names it.
    pub fn actor(&self) -> Actor {
        Actor::User(self.user.clone())
    }
}

/// All accounts and tokens.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Accounts by name.
    pub users: BTreeMap<UserName, User>,
    /// Tokens by the digest of their secret.
    pub tokens: BTreeMap<Digest, Token>,
}

impl Access {
    /// Takes in what happened.
    pub fn evolve(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::UserSet { user, roles, password_hash } => {
                let found = self.users.entry(user.clone()).or_default();
                found.roles = roles.iter().copied().collect();
                if password_hash.is_some() {
                    found.password = password_hash.clone();
                }
            }
            Event::TokenIssued { user, name, hash, roles, expires, kind } => {
                let token = Token {
                    user: user.clone(),
                    name: name.clone(),
                    roles: roles.iter().copied().collect(),
                    expires: *expires,
                    kind: *kind,
                    issued: recorded.at,
                };
                self.tokens.insert(hash.clone(), token);
            }
            Event::TokenRevoked { hash } => drop(self.tokens.remove(hash)),
            _ => {}
        }
    }

    /// Whoever holds this secret. The look-up is by digest, so its time says nothing about the secret.
    pub fn holder(&self, secret: &str, now: Time) -> Option<Caller> {
        let hash = Digest::of(secret.as_bytes());
        let token = self.tokens.get(&hash).filter(|token| token.expires.is_none_or(|end| now < end))?;
        let user = self.users.get(&token.user)?;
        let roles = match user.roles.contains(&Role::Owner) {
            true => token.roles.clone(),
            false => token.roles.intersection(&user.roles).copied().collect(),
        };
        Some(Caller { user: token.user.clone(), roles, token: Some(hash), kind: Some(token.kind) })
    }

    /// Whoever knows this password. Costs the same whether the account exists or not.
    pub fn knows(&self, name: &str, password: &str) -> Option<UserName> {
        let user = name.parse::<UserName>().ok().and_then(|name| self.users.get_key_value(&name));
        let stored = user.as_ref().and_then(|(_, user)| user.password.as_deref());
        let hash = PasswordHash::new(stored.unwrap_or(NOBODY)).ok()?;
        let right = argon2::Argon2::default().verify_password(password.as_bytes(), &hash).is_ok();
        user.filter(|_| right && stored.is_some()).map(|(name, _)| name.clone())
    }
}

/// A hash that no password is kept under: verified against when there is no account, so that timing tells nothing.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$YW5kb24tbm9ib2R5LWhlcmU$7bE5tdTRyYIvFm5YEStMQvRrFbhD9F1WM4xUZqO2kQk";

/// The hash to keep of a password. Costs about 20 MB and some ten milliseconds, by design.
pub fn hash(password: &str) -> Result<String, Refusal> {
    if password.chars().count() < 10 {
        return Err(Refusal::Bad("a password has at least 10 characters".into()));
    }
    let hash = argon2::Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| Refusal::Broken(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(events: Vec<Event>) -> Access {
        let mut access = Access::default();
        for event in events {
            access.evolve(&Recorded { seq: 1, at: Time(0), by: Actor::line("t"), project: None, event });
        }
        access
    }

    fn user(name: &str, roles: Vec<Role>, password: Option<&str>) -> Event {
        let password_hash = password.map(|p| hash(p).unwrap());
        Event::UserSet { user: name.parse().unwrap(), roles, password_hash }
    }

    fn token(name: &str, secret: &str, roles: Vec<Role>, expires: Option<Time>) -> Event {
        let hash = Digest::of(secret.as_bytes());
        Event::TokenIssued {
            user: name.parse().unwrap(),
            name: "t".into(),
            hash,
            roles,
            expires,
            kind: TokenKind::Api,
        }
    }

    #[test]
    fn a_token_never_allows_more_than_its_user() {
        let access = access(vec![
            user("ann", vec![Role::Developer], None),
            token("ann", "s", vec![Role::Developer, Role::Owner], None),
        ]);
        let caller = access.holder("s", Time(0)).unwrap();
        assert!(caller.may(Role::Developer).is_ok() && caller.may(Role::Viewer).is_ok());
        assert!(caller.may(Role::Owner).is_err() && caller.may(Role::Releaser).is_err());
        assert!(access.holder("x", Time(0)).is_none());
    }

    #[test]
    fn an_expired_or_revoked_token_opens_nothing() {
        let mut access = access(vec![
            user("ann", vec![Role::Owner], None),
            token("ann", "s", vec![Role::Owner], Some(Time(10))),
        ]);
        assert!(access.holder("s", Time(9)).is_some());
        assert!(access.holder("s", Time(10)).is_none());
        let event = Event::TokenRevoked { hash: Digest::of(b"s") };
        access.evolve(&Recorded { seq: 2, at: Time(0), by: Actor::line("t"), project: None, event });
        assert!(access.holder("s", Time(0)).is_none());
    }

    #[test]
    fn only_the_right_password_of_an_existing_account_opens() {
        let access = access(vec![user("ann", vec![], Some("correct horse")), user("bob", vec![], None)]);
        assert_eq!(access.knows("ann", "correct horse").unwrap().as_str(), "ann");
        for (name, password) in [("ann", "wrong"), ("bob", ""), ("eve", "correct horse"), ("../x", "")] {
            assert!(access.knows(name, password).is_none(), "{name} got in");
        }
        assert!(hash("short").is_err());
    }
}
