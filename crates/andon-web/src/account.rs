//! One's own account: password, tokens, leaving.

use std::sync::Arc;

use andon_line::refusal::role;
use andon_line::{Caller, Line, Refusal};
use andon_model::event::{Role, TokenKind};
use andon_model::{Digest, Span, Time};
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::HeaderMap;
use maud::{Markup, html};

use crate::act::{Fields, back, field};
use crate::parts::{self, Ask};
use crate::said::{Said, append};
use crate::shell;
use crate::show::Who;

/// The page.
pub async fn account(State(line): State<Arc<Line>>, Who(caller): Who, headers: HeaderMap) -> Response {
    let said = Said::read(&headers);
    let mut answer = page(&line, &caller, said.as_ref(), None).into_response();
    if said.is_some() {
        Said::forget(answer.headers_mut());
    }
    answer
}

fn page(line: &Line, caller: &Caller, said: Option<&Said>, fresh: Option<&str>) -> Markup {
    let access = line.access().0.clone();
    let user = access.users.get(&caller.user).cloned().unwrap_or_default();
    let roles: Vec<&str> = caller.roles.iter().map(role).collect();
    let mut tokens: Vec<_> = access
        .tokens
        .iter()
        .filter(|(_, token)| token.user == caller.user && token.kind != TokenKind::OneTime)
        .collect();
    tokens.sort_by_key(|(_, token)| std::cmp::Reverse(token.issued));
    let leave = parts::push("/account/leave", "Log out", "");
    let sentence = match roles.is_empty() {
        true => "Without a role yet: an owner gives one.".to_owned(),
        false => format!("Logged in as {}.", roles.join(", ")),
    };
    let main = html! {
        (parts::head(caller.user.as_str(), &sentence, leave))
        @if let Some(secret) = fresh {
            section.sheet.fresh #fresh aria-label="New token" {
                p { span.st.go { "Your new token. It is shown this once:" } }
                pre.secret { (secret) }
                p.soft { "For git it is the password, the name may be anything. For programs: Authorization: Bearer." }
            }
        }
        (parts::sheet("password", if user.password.is_some() { "Change the password" } else { "Set a password" }, password_form(caller.user.as_str(), user.password.is_some())))
        (parts::sheet("new-token", "New token", token_form(caller)))
        (parts::sheet("tokens", "Browsers and tokens", html! {
            div.scroll { table {
                thead { tr { th scope="col" { "Name" } th scope="col" { "May" } th scope="col" { "Since" } th scope="col" { "Until" } th scope="col" { span.unseen { "Do" } } } }
                tbody { @for (n, (digest, token)) in tokens.iter().enumerate() { (row(n, digest, token, caller, line.now())) } }
            } }
        }))
    };
    shell::outside("Account", Some(caller), said, main)
}

fn row(n: usize, digest: &Digest, token: &andon_line::access::Token, caller: &Caller, now: Time) -> Markup {
    let roles: Vec<&str> = token.roles.iter().map(role).collect();
    let own = caller.token.as_ref() == Some(digest);
    let over = token.expires.is_some_and(|end| end <= now);
    html! {
        tr {
            td { b { (token.name) } @if own { " " span.chip.live { "this browser" } } }
            td { (roles.join(", ")) }
            td { (parts::day(token.issued)) }
            td { @match token.expires { Some(_) if over => "over", Some(end) => (parts::day(end)), None => "it is revoked" } }
            td.num {
                @if !own {
                    (Ask { id: &format!("revoke-{n}"), label: "Revoke", look: "danger", action: "/account/revoke", what: "Whoever uses it is locked out at once.", yes: "Revoke it" }
                        .with(parts::hidden("digest", &digest.to_string())))
                }
            }
        }
    }
}

fn password_form(user: &str, has: bool) -> Markup {
    html! {
        form.stack method="post" action="/account/password" {
            input.unseen type="text" name="name" value=(user) autocomplete="username" readonly tabindex="-1" aria-hidden="true";
            @if has { label.field { span { "Password now" } input type="password" name="old" required autocomplete="current-password" maxlength="1000"; } }
            label.field { span { "New password, at least 10 characters" } input type="password" name="new" required minlength="10" maxlength="1000" autocomplete="new-password"; }
            button.btn.go { "Keep it" }
        }
    }
}

fn token_form(caller: &Caller) -> Markup {
    let all = [Role::Viewer, Role::Developer, Role::Deployer, Role::Releaser, Role::Owner];
    html! {
        form.stack method="post" action="/account/tokens" {
            (parts::text("name", "What it is for", "laptop", true))
            label.field { span { "May at most" } select name="role" { @for one in all.iter().filter(|one| parts::may(caller, **one)) { option value=(role(one)) selected[*one == Role::Developer] { (role(one)) } } } }
            label.field { span { "Lasts" } input type="text" name="lasts" value="90d" placeholder="90d, 8h; empty: until revoked" autocomplete="off"; }
            button.btn.go { "Make a token" }
        }
    }
}

/// Sets one's own password. Whoever has one must know it: a forgotten open browser is not enough.
pub async fn password(State(line): State<Arc<Line>>, Who(caller): Who, fields: Fields) -> Response {
    let set = async {
        let access = line.access().0.clone();
        let Some(user) = access.users.get(&caller.user).cloned() else {
            return Err(Refusal::Unknown("this account is gone".into()));
        };
        if user.password.is_some() {
            let (name, old) = (caller.user.to_string(), fields.get("old").cloned().unwrap_or_default());
            let knows = tokio::task::spawn_blocking(move || access.knows(&name, &old).is_some()).await;
            if !knows.unwrap_or(false) {
                return Err(Refusal::Bad("the password now is another one".into()));
            }
        }
        let new = fields.get("new").map(String::as_str).unwrap_or_default();
        line.set_user(&caller, caller.user.clone(), user.roles.iter().copied().collect(), Some(new)).await?;
        Ok("the password is kept".to_owned())
    };
    back("/account", set.await)
}

/// Makes a token and shows its secret once.
pub async fn issue(State(line): State<Arc<Line>>, Who(caller): Who, fields: Fields) -> Response {
    let made = async {
        let all = [Role::Viewer, Role::Developer, Role::Deployer, Role::Releaser, Role::Owner];
        let wanted = field(&fields, "role");
        let wanted = all.into_iter().find(|one| role(one) == wanted);
        let wanted = wanted.ok_or_else(|| Refusal::Bad("that is no role".into()))?;
        let lasts =
            Some(field(&fields, "lasts")).filter(|text| !text.is_empty()).map(str::parse::<Span>).transpose();
        let lasts = lasts.map_err(|error| Refusal::Bad(error.to_string()))?;
        line.issue(&caller, caller.user.clone(), field(&fields, "name").to_owned(), vec![wanted], lasts).await
    };
    match made.await {
        Ok(secret) => page(&line, &caller, None, Some(&secret)).into_response(),
        Err(refusal) => back("/account", Err(refusal)),
    }
}

/// Makes a token worth nothing.
pub async fn revoke(State(line): State<Arc<Line>>, Who(caller): Who, fields: Fields) -> Response {
    let revoked = async {
        let digest: Digest =
            field(&fields, "digest").parse().map_err(|_| Refusal::Bad("that is no token".into()))?;
        line.revoke(&caller, digest).await.map(|()| "it opens nothing any more".to_owned())
    };
    back("/account", revoked.await)
}

/// Ends this browser's session.
pub async fn leave(State(line): State<Arc<Line>>, Who(caller): Who) -> Response {
    let session = caller.token.clone().filter(|_| caller.kind == Some(TokenKind::Session));
    if let Some(digest) = session
        && let Err(refusal) = line.revoke(&caller, digest).await
    {
        return back("/account", Err(refusal));
    }
    let mut answer = Redirect::to("/login").into_response();
    append(answer.headers_mut(), "andon_session=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0");
    answer
}
