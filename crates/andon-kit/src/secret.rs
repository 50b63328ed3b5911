//! Secrets from the system's randomness. Keeps none.

/// A new secret of 128 random bits, as `prefix` and 32 hexadecimal digits. The prefix lets scanners find leaked ones.
///
/// # Panics
/// When the system has no randomness to give: nothing secure can be done then.
pub fn fresh(prefix: &str) -> String {
    let mut bits = [0u8; 16];
    getrandom::fill(&mut bits).unwrap_or_else(|error| panic!("the system gives no random bytes: {error}"));
    format!("{prefix}{}", hex::encode(bits))
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_secrets_are_never_the_same() {
        let (one, two) = (super::fresh("andon_"), super::fresh("andon_"));
        assert_ne!(one, two);
        assert_eq!(one.len(), 6 + 32);
    }
}
