//! The contract of every journal engine, one clause after the other.
//!
//! A macro, so that the engines' own crate can be held to it: that crate depends on this one for its tests, and not the other way round.

/// Holds a journal to its contract. To be used where `Journal`, `Batch`, `NewEvent` and `JournalError` of andon-store are the crate's own;
/// the argument is an expression that gives an empty, opened journal.
#[macro_export]
#[allow(clippy::crate_in_macro_def, reason = "the engine's own crate is meant")]
macro_rules! journal_contract {
    ($open:expr) => {{
        use crate::journal::{Batch, Fence, Journal as _, JournalError, NewEvent};
        use andon_model::{Actor, Event, ProjectName, Span, Time};
        use $crate::journal::trunks;
        let journal = $open;
        let event = |trunk: &str| NewEvent {
            by: Actor::line("test"),
            event: Event::ProjectCreated { trunk: trunk.into() },
        };
        let batch = |project: Option<&str>, expected: u64, names: &[&str], fence: Option<Fence>| Batch {
            project: project.map(|name| name.parse::<ProjectName>().unwrap()),
            expected,
            at: Time(7),
            events: names.iter().map(|name| event(name)).collect(),
            fence,
        };

        // Events come back in order, numbered without gaps, as they were given.
        let first = journal.append(batch(Some("a"), 0, &["1", "2"], None)).await.unwrap();
        assert_eq!(first.iter().map(|r| r.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(journal.read(0, 10).await.unwrap(), first);

        // Streams do not disturb each other.
        journal.append(batch(Some("b"), 0, &["3"], None)).await.unwrap();
        journal.append(batch(None, 0, &["4"], None)).await.unwrap();

        // A decision on an old version is refused whole.
        let late = journal.append(batch(Some("a"), 1, &["x", "y"], None)).await;
        assert!(matches!(late, Err(JournalError::Conflict { expected: 1, actual: 2 })), "{late:?}");

        // Of many that decide on the same version exactly one is recorded.
        let racers = (0..20).map(|n| {
            let (journal, batch) = (journal.clone(), batch(Some("a"), 2, &[&n.to_string()], None));
            tokio::spawn(async move { journal.append(batch).await.is_ok() })
        });
        let mut won = 0;
        for racer in racers.collect::<Vec<_>>() {
            won += usize::from(racer.await.unwrap());
        }
        assert_eq!(won, 1);

        // Reading goes on from any place, in pages.
        let all = journal.read(0, 100).await.unwrap();
        assert_eq!(trunks(&all)[..4], ["1", "2", "3", "4"]);
        assert_eq!(journal.read(1, 2).await.unwrap(), all[1..3]);

        // A lease has one holder; the next one's number is larger; the old one's appends are refused.
        let old = journal.acquire("l", "ann", Time(0), Span(10)).await.unwrap().unwrap();
        assert!(journal.acquire("l", "bob", Time(9), Span(10)).await.unwrap().is_none());
        assert!(journal.renew(&old.fence, Time(20)).await.unwrap());
        assert!(journal.acquire("l", "bob", Time(19), Span(10)).await.unwrap().is_none());
        let new = journal.acquire("l", "bob", Time(20), Span(10)).await.unwrap().unwrap();
        assert!(new.fence.number > old.fence.number);
        assert!(!journal.renew(&old.fence, Time(99)).await.unwrap());
        let stale = journal.append(batch(Some("c"), 0, &["z"], Some(old.fence))).await;
        assert!(matches!(stale, Err(JournalError::Fenced { .. })), "{stale:?}");
        journal.append(batch(Some("c"), 0, &["z"], Some(new.fence))).await.unwrap();

        // A holder that comes back takes its own lease at once, under a new number.
        let again = journal.acquire("l", "bob", Time(21), Span(10)).await.unwrap().unwrap();
        assert!(again.fence.number > 2);
    }};
}

/// The trunk names of `ProjectCreated` events: what the clauses recognise their events by.
pub fn trunks(recorded: &[andon_model::Recorded]) -> Vec<String> {
    let name = |r: &andon_model::Recorded| match &r.event {
        andon_model::Event::ProjectCreated { trunk } => Some(trunk.clone()),
        _ => None,
    };
    recorded.iter().filter_map(name).collect()
}
