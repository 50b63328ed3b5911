//! Orders at a real ACME server.

use andon_certificates::{Authority, Folder, OrderError};
use andon_testkit::pebble::Pebble;
use x509_parser::pem::parse_x509_pem;

fn authority(pebble: &Pebble) -> Authority {
    Authority {
        directory: pebble.directory.clone(),
        contact: Some("mailto:ops@shop.example".into()),
        root: Some(pebble.root.clone()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_ordered_for_the_host_and_the_account_is_used_again() {
    let Some(pebble) = Pebble::looking_at(None) else { return };
    let room = tempfile::tempdir().unwrap();
    let folder = Folder::open(room.path()).unwrap();
    let answers = pebble.answering();
    for host in ["shop.example", "api.shop.example"] {
        let proves = answers.clone();
        let pair = authority(&pebble).order(&folder, host, move |said| *proves.lock().unwrap() = said).await;
        let pair = pair.unwrap_or_else(|error| panic!("{error}"));
        folder.keep(host, &pair).unwrap();
        let (_, pem) = parse_x509_pem(pair.chain.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert!(format!("{:?}", names.value.general_names).contains(host), "{names:?}");
        assert!(
            pair.chain.matches("BEGIN CERTIFICATE").count() >= 2,
            "the way to the authority is part of it"
        );
        assert!(answers.lock().unwrap().is_empty(), "what was proven is no longer said");
    }
    assert_eq!(folder.read().unwrap().len(), 2);
    let kept = std::fs::read_to_string(room.path().join("account.json")).unwrap();
    assert!(kept.contains(&pebble.directory));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_lead_here_gets_none_and_the_words_say_what_to_do() {
    let Some(pebble) = Pebble::looking_at(None) else { return };
    let room = tempfile::tempdir().unwrap();
    let folder = Folder::open(room.path()).unwrap();
    let _nobody_proves = pebble.answering();
    let error = authority(&pebble).order(&folder, "shop.example", |_| ()).await.unwrap_err();
    assert!(matches!(error, OrderError::NotOurs(..)), "{error:?}");
    assert!(error.to_string().contains("hint: "));
}
