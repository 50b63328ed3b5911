//! An authority of certificates, asked by ACME (RFC 8555). It looks at the host over HTTP (section 8.3) to see that it is ours.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy,
};

use crate::{Folder, Pair};

/// For an authority to look, and to write out what it was asked for.
const WITHIN: Duration = Duration::from_secs(120);

/// Why a certificate was not given.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The authority cannot be reached, or refuses.
    #[error(
        "{0} gives no certificate for {1}: {2}\nhint: it looks at http://{1}/.well-known/acme-challenge/ on port 80; that has to reach the router"
    )]
    Refused(String, String, String),
    /// It did not find its answer at the host.
    #[error(
        "{0} did not see that {1} is ours: {2}\nhint: its name has to lead here, and port 80 to the router"
    )]
    NotOurs(String, String, String),
    /// The account cannot be kept.
    #[error("the account at the authority cannot be kept: {0}\nhint: look at the folder of certificates")]
    Kept(std::io::Error),
}

/// Where certificates are ordered.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The address of its directory.
    pub directory: String,
    /// Where it writes to when a certificate ends, as `mailto:ops@example.com`.
    pub contact: Option<String>,
    /// A root that its own door is known by, as PEM, where that is none of the usual ones.
    pub root: Option<PathBuf>,
}

impl Authority {
    /// Orders a certificate. What the authority is to find below `/.well-known/acme-challenge/`, by token, is given to `prove` before it looks, and nothing
    /// afterwards.
    pub async fn order(
        &self,
        folder: &Folder,
        host: &str,
        prove: impl Fn(HashMap<String, String>),
    ) -> Result<Pair, OrderError> {
        let account = self.account(folder, host).await?;
        let ordered = self.ordered(&account, host, &prove).await;
        prove(HashMap::new());
        ordered
    }

    async fn ordered(
        &self,
        account: &Account,
        host: &str,
        prove: &impl Fn(HashMap<String, String>),
    ) -> Result<Pair, OrderError> {
        let refused = |error: instant_acme::Error| self.refused(host, &error.to_string());
        let names = [Identifier::Dns(host.to_owned())];
        let mut order = account.new_order(&NewOrder::new(&names)).await.map_err(refused)?;
        let mut answers = HashMap::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(refused)?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let challenge = authorization.challenge(ChallengeType::Http01);
            let mut challenge =
                challenge.ok_or_else(|| self.refused(host, "it does not offer to look over HTTP"))?;
            answers.insert(challenge.token.clone(), challenge.key_authorization().as_str().to_owned());
            prove(answers.clone());
            challenge.set_ready().await.map_err(refused)?;
        }
        let patience = RetryPolicy::default().timeout(WITHIN);
        let not_ours = |why: String| OrderError::NotOurs(self.directory.clone(), host.to_owned(), why);
        // What the authority says of the order itself is about the host; everything else is about reaching it.
        let looked = |error: instant_acme::Error| match error {
            instant_acme::Error::Api(problem) => not_ours(problem.to_string()),
            error => refused(error),
        };
        match order.poll_ready(&patience).await.map_err(looked)? {
            OrderStatus::Ready => {}
            status => return Err(not_ours(format!("the order is {status:?}").to_lowercase())),
        }
        let key = order.finalize().await.map_err(refused)?;
        let chain = order.poll_certificate(&patience).await.map_err(refused)?;
        Ok(Pair { chain, key })
    }

    /// The account that is kept; a new one where there is none, or where it is of another authority.
    async fn account(&self, folder: &Folder, host: &str) -> Result<Account, OrderError> {
        let refused = |error: instant_acme::Error| self.refused(host, &error.to_string());
        let builder = || match &self.root {
            Some(root) => Account::builder_with_root(root),
            None => Account::builder(),
        };
        let kept = std::fs::read(folder.account()).ok();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        let kept = kept.filter(|kept| kept["directory"] == self.directory.as_str());
        if let Some(credentials) =
            kept.and_then(|kept| serde_json::from_value(kept["credentials"].clone()).ok())
        {
            return builder().map_err(refused)?.from_credentials(credentials).await.map_err(refused);
        }
        let contact: Vec<&str> = self.contact.iter().map(String::as_str).collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let made = builder().map_err(refused)?.create(&new, self.directory.clone(), None).await;
        let (account, credentials) = made.map_err(refused)?;
        let kept = serde_json::json!({ "directory": self.directory, "credentials": credentials });
        folder.write("account.json", kept.to_string().as_bytes()).map_err(OrderError::Kept)?;
        Ok(account)
    }

    fn refused(&self, host: &str, why: &str) -> OrderError {
        OrderError::Refused(self.directory.clone(), host.to_owned(), why.to_owned())
    }
}
