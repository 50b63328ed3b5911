//! What people do with accounts, tokens and sessions. Who may do what is in [`crate::access`].

use andon_model::event::{Event, Role, TokenKind};
use andon_model::{Actor, Digest, Span, UserName};

use crate::access::{self, Caller};
use crate::{Line, Refusal};

/// How long a browser stays logged in.
const SESSION: Span = Span::secs(14 * 86_400);

impl Line {
    /// Creates or changes an account.
    pub async fn set_user(
        &self,
        caller: &Caller,
        user: UserName,
        roles: Vec<Role>,
        password: Option<&str>,
    ) -> Result<(), Refusal> {
        let own_password = caller.user == user
            && self
                .access()
                .0
                .users
                .get(&user)
                .is_some_and(|u| roles.iter().copied().eq(u.roles.iter().copied()));
        if !own_password {
            caller.may(Role::Owner)?;
        }
        let password_hash = password.map(access::hash).transpose()?;
        self.decide_server(caller.actor(), |access, _| {
            let owners =
                |(name, held): (&UserName, &access::User)| *name != user && held.roles.contains(&Role::Owner);
            if !roles.contains(&Role::Owner) && !access.users.iter().any(owners) {
                let why = "this would leave nobody with the role owner\nhint: give it to somebody else first";
                return Err(Refusal::Conflict(why.into()));
            }
            Ok((vec![Event::UserSet { user: user.clone(), roles, password_hash }], ()))
        })
        .await
    }

    /// Issues a secret for an account; only its digest is kept. Nobody can issue more than they hold.
    pub async fn issue(
        &self,
        caller: &Caller,
        user: UserName,
        name: String,
        roles: Vec<Role>,
        lasts: Option<Span>,
    ) -> Result<String, Refusal> {
        if caller.user != user {
            caller.may(Role::Owner)?;
        }
        for role in &roles {
            caller.may(*role)?;
        }
        let secret = andon_kit::secret::fresh("andon_");
        let hash = Digest::of(secret.as_bytes());
        self.decide_server(caller.actor(), |access, now| {
            if !access.users.contains_key(&user) {
                return Err(Refusal::Unknown(format!("there is no user {user}")));
            }
            let expires = lasts.map(|lasts| now + lasts);
            let name = name.chars().filter(|c| !c.is_control()).take(80).collect();
            Ok((vec![Event::TokenIssued { user, name, hash, roles, expires, kind: TokenKind::Api }], ()))
        })
        .await?;
        Ok(secret)
    }

    /// Makes a token worth nothing.
    pub async fn revoke(&self, caller: &Caller, hash: Digest) -> Result<(), Refusal> {
        let whose = self.access().0.tokens.get(&hash).map(|token| token.user.clone());
        match whose {
            None => return Err(Refusal::Unknown("there is no such token".into())),
            Some(user) if user != caller.user => caller.may(Role::Owner)?,
            Some(_) => {}
        }
        self.decide_server(caller.actor(), |_, _| Ok((vec![Event::TokenRevoked { hash }], ()))).await
    }

    /// The secret of the one-time link that makes its holder the owner.
    pub async fn owner_link(&self) -> Result<String, Refusal> {
        let owner: UserName = "owner".parse().map_err(|_| Refusal::Broken("a constant name".into()))?;
        let secret = andon_kit::secret::fresh("once_");
        let hash = Digest::of(secret.as_bytes());
        self.decide_server(Actor::line("console"), |access, now| {
            let mut events = Vec::new();
            if !access.users.values().any(|user| user.roles.contains(&Role::Owner)) {
                events.push(Event::UserSet {
                    user: owner.clone(),
                    roles: vec![Role::Owner],
                    password_hash: None,
                });
            }
            let used = |user: &&UserName| access.users[*user].roles.contains(&Role::Owner);
            let user = access.users.keys().find(used).cloned().unwrap_or(owner);
            let expires = Some(now + Span::secs(86_400));
            let (name, roles, kind) = ("owner link".into(), vec![Role::Owner], TokenKind::OneTime);
            events.push(Event::TokenIssued { user, name, hash, roles, expires, kind });
            Ok((events, ()))
        })
        .await?;
        Ok(secret)
    }

    /// Opens a browser session for whoever holds a one-time secret, which is used up by this.
    pub async fn enter(&self, secret: &str) -> Result<String, Refusal> {
        let now = self.now();
        let caller =
            self.access().0.holder(secret, now).filter(|caller| caller.kind == Some(TokenKind::OneTime));
        let Some(caller) = caller else {
            let why = "this link was used already or is too old\nhint: `andon serve` prints a new one when it starts";
            return Err(Refusal::Conflict(why.into()));
        };
        let used = caller.token.clone();
        self.session(&caller.user, used).await
    }

    /// Opens a browser session for whoever knows the password.
    pub async fn log_in(&self, name: &str, password: &str) -> Result<String, Refusal> {
        let access = self.access().0.clone();
        let (name, password) = (name.to_owned(), password.to_owned());
        let known = tokio::task::spawn_blocking(move || access.knows(&name, &password)).await;
        let Ok(Some(user)) = known else { return Err(Refusal::Bad("name or password is wrong".into())) };
        self.session(&user, None).await
    }

    async fn session(&self, user: &UserName, used: Option<Digest>) -> Result<String, Refusal> {
        let secret = andon_kit::secret::fresh("session_");
        let hash = Digest::of(secret.as_bytes());
        self.decide_server(Actor::User(user.clone()), |access, now| {
            // Looked at again in this turn: a one-time secret opens once even if it comes twice at the same moment.
            if used.as_ref().is_some_and(|used| !access.tokens.contains_key(used)) {
                return Err(Refusal::Conflict("this link was used already".into()));
            }
            let roles =
                access.users.get(user).map(|user| user.roles.iter().copied().collect()).unwrap_or_default();
            let mut events: Vec<Event> = used.into_iter().map(|hash| Event::TokenRevoked { hash }).collect();
            let stale = access.tokens.iter().filter(|(_, t)| t.expires.is_some_and(|end| end <= now));
            events.extend(stale.map(|(hash, _)| Event::TokenRevoked { hash: hash.clone() }));
            let (name, expires, kind) = ("browser".into(), Some(now + SESSION), TokenKind::Session);
            events.push(Event::TokenIssued { user: user.clone(), name, hash, roles, expires, kind });
            Ok((events, ()))
        })
        .await?;
        Ok(secret)
    }
}
