//! Against a registry that misbehaves on purpose.

use std::sync::Arc;

use axum::http::StatusCode;
use bytes::Bytes;
use types::{Digest, Error, Kind};

use super::{
    fake::{Fake, State},
    support::{Log, Memory, bounded, client, content, image, request, served},
};
use crate::registry::{Credentials, PullRequest, Pulled};

/// Pulls `a:1`, as `credentials`, from a registry in `state`.
async fn pull_as(
    state: State,
    credentials: Credentials,
) -> (Fake, Arc<Memory>, Log, Result<Vec<Pulled>, Error>) {
    let fake = Fake::start(served(&content(1, 600_000)), state).await;
    let (sink, log) = (Arc::new(Memory::default()), Log::default());
    let request = PullRequest {
        credentials,
        ..request(&format!("{}/a:1", fake.host))
    };
    let result = bounded(client().pull(&request, sink.clone(), log.report())).await;
    (fake, sink, log, result)
}

async fn pull(state: State) -> (Fake, Arc<Memory>, Log, Result<Vec<Pulled>, Error>) {
    pull_as(state, Credentials::default()).await
}

fn intact(sink: &Memory) -> bool {
    let tar = content(1, 600_000);
    sink.layers.lock().unwrap().get(&Digest::of(&tar)) == Some(&tar)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_transfer_goes_on() {
    let (fake, sink, _, result) = pull(State {
        cuts: 6,
        ..State::default()
    })
    .await;
    result.unwrap();
    assert!(intact(&sink));
    let ranges = fake.state().ranges.clone();
    assert_eq!(ranges.len(), 6);
    // Each begins where the one before broke.
    assert_eq!(ranges[0], format!("bytes={}-", fake.layer().len() / 3));
    assert!(ranges.is_sorted_by_key(|range| range[6..range.len() - 1].parse::<usize>().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_ranges() {
    let (_, sink, _, result) = pull(State {
        cuts: 2,
        no_ranges: true,
        ..State::default()
    })
    .await;
    result.unwrap();
    assert!(intact(&sink));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_never_goes_on() {
    let (_, sink, log, result) = pull(State {
        cuts: usize::MAX,
        no_ranges: true,
        ..State::default()
    })
    .await;
    assert_eq!(result.unwrap_err().kind, Kind::System);
    assert!(sink.layers.lock().unwrap().is_empty() && sink.images.lock().unwrap().is_empty());
    assert!(!log.lines().iter().any(|line| line.starts_with("Status")));
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_layers_are_refused() {
    let good = served(&content(1, 600_000)).layer;
    let mut flipped = good.to_vec();
    flipped[300_000] ^= 1;
    let mut longer = good.to_vec();
    longer.push(0);
    let other = served(&content(2, 600_000)).layer;
    for forged in [
        flipped,
        longer,
        other.to_vec(),
        good[..good.len() - 1].to_vec(),
        vec![0; good.len()],
    ] {
        let (_, sink, _, result) = pull(State {
            forged: Some(forged.into()),
            ..State::default()
        })
        .await;
        result.unwrap_err();
        assert!(sink.layers.lock().unwrap().is_empty() && sink.images.lock().unwrap().is_empty());
    }
    // Another time in gzip's header decompresses well, and is not what the manifest named.
    let mut dated = good.to_vec();
    dated[4] = 1;
    let (fake, _, _, result) = pull(State {
        forged: Some(dated.into()),
        ..State::default()
    })
    .await;
    assert_eq!(
        result.unwrap_err().message,
        format!(
            "filesystem layer verification failed for digest {}",
            fake.layer_digest()
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_refused() {
    let forged = |text: &str| State {
        manifest: Some(Bytes::from(text.to_owned())),
        ..State::default()
    };
    for (text, says) in [
        (r#"{"schemaVersion":1,"name":"a","tag":"1"}"#, "schema 1"),
        ("nonsense", "invalid manifest"),
        (
            r#"{"schemaVersion":2,"mediaType":"text/html"}"#,
            "unsupported manifest media type",
        ),
    ] {
        let (.., result) = pull(forged(text)).await;
        let message = result.unwrap_err().message;
        assert!(message.contains(says), "{message}");
    }
    let chart = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.cncf.helm.config.v1+json","size":2,"digest":"{}"}},"layers":[]}}"#,
        Digest::of(b"{}")
    );
    let (.., result) = pull(forged(&chart)).await;
    assert!(
        result
            .unwrap_err()
            .message
            .contains("not a container image")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_failures_are_sat_out() {
    let failures = vec![
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::BAD_GATEWAY,
    ];
    let (_, sink, _, result) = pull(State {
        failures,
        ..State::default()
    })
    .await;
    result.unwrap();
    assert!(intact(&sink));

    let (.., result) = pull(State {
        failures: vec![StatusCode::INTERNAL_SERVER_ERROR; 100],
        ..State::default()
    })
    .await;
    assert_eq!(
        result.unwrap_err().message,
        "received unexpected HTTP status: 500 Internal Server Error"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens() {
    let (fake, sink, _, result) = pull(State {
        tokens: true,
        ..State::default()
    })
    .await;
    result.unwrap();
    assert!(intact(&sink));
    let asked: Vec<String> = fake
        .state()
        .log
        .iter()
        .filter(|line| line.contains("/token"))
        .cloned()
        .collect();
    assert_eq!(
        asked,
        ["GET /token?service=fake&scope=repository%3Aa%3Apull"]
    );

    // A token that ends in the middle is renewed.
    let (fake, sink, _, result) = pull(State {
        tokens: true,
        uses: 1,
        ..State::default()
    })
    .await;
    result.unwrap();
    assert!(intact(&sink));
    assert!(fake.state().token_requests.len() >= 3);

    let (fake, .., result) = pull_as(
        State {
            tokens: true,
            ..State::default()
        },
        Credentials::basic("u", "p"),
    )
    .await;
    result.unwrap();
    assert_eq!(fake.state().token_requests[0].0, "Basic dTpw");
    assert!(
        fake.state()
            .log
            .iter()
            .any(|line| line.ends_with("account=u"))
    );

    let identity = Credentials {
        username: "u".into(),
        identity_token: "t k".into(),
        ..Credentials::default()
    };
    let (fake, .., result) = pull_as(
        State {
            tokens: true,
            ..State::default()
        },
        identity,
    )
    .await;
    result.unwrap();
    let (authorization, body) = fake.state().token_requests[0].clone();
    assert_eq!(authorization, "");
    assert!(
        body.contains("grant_type=refresh_token") && body.ends_with("refresh_token=t+k"),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_access() {
    let (.., log, result) = pull(State {
        tokens: true,
        denied: true,
        ..State::default()
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    let (before, after) = (
        "pull access denied for ",
        "/a, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
    );
    assert!(
        error.message.starts_with(before) && error.message.ends_with(after),
        "{}",
        error.message
    );
    assert!(log.lines().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_upload_starts_again() {
    let fake = Fake::start(served(b""), State::default()).await;
    let (image, source) = image(&format!("{}/a:2", fake.host), &[content(3, 700_000)]);
    fake.state().failures = vec![StatusCode::ACCEPTED];
    let log = Log::default();
    let error = bounded(client().push(
        &image.reference,
        vec![image.clone()],
        &Credentials::default(),
        source.clone(),
        log.report(),
    ))
    .await;
    // A 202 without a location is no upload.
    assert!(error.unwrap_err().message.contains("without saying where"));

    fake.state().bad_patches = 2;
    let pushed = bounded(client().push(
        &image.reference,
        vec![image.clone()],
        &Credentials::default(),
        source.clone(),
        log.report(),
    ))
    .await
    .unwrap();
    assert!(fake.state().blobs.contains_key(&pushed[0].layers[0].digest));

    // A layer that cannot be read ends the push and leaves no manifest.
    let none = Arc::new(Memory::default());
    let mut other = image.clone();
    other.layers[0].diff_id = Digest::of(b"elsewhere");
    let before = fake.state().log.len();
    let error = bounded(client().push(
        &other.reference,
        vec![other.clone()],
        &Credentials::default(),
        none,
        log.report(),
    ))
    .await
    .unwrap_err();
    assert_eq!(error.message, "no such layer");
    assert!(
        !fake.state().log[before..]
            .iter()
            .any(|line| line.starts_with("PUT /v2/a/manifests"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_given_up_leaves_nothing() {
    let state = State {
        cuts: usize::MAX,
        stalls: true,
        ..State::default()
    };
    let fake = Fake::start(served(&content(1, 600_000)), state).await;
    let (sink, log) = (Arc::new(Memory::default()), Log::default());
    let request = request(&format!("{}/a:1", fake.host));
    let downloading = async {
        while !log.lines().iter().any(|line| line.ends_with("Downloading")) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let client = client();
    bounded(async {
        tokio::select! {
            _ = client.pull(&request, sink.clone(), log.report()) => panic!("nothing more arrives"),
            () = downloading => {}
        }
        // The unpacking thread notices, and lets go of the sink.
        while Arc::strong_count(&sink) > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(sink.layers.lock().unwrap().is_empty());
}
