//! Against Debian's `docker-registry`.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::Method;
use types::{Digest, Kind, Reference};

use super::support::{
    Log, Memory, Registry, Tls, bounded, client, client_with, config_of, content, image, request,
};
use crate::registry::{
    Client, Credentials, KnownBlob, Options, Platform, Pulled, PushImage,
    client::Intent,
    gzip,
    manifest::{Descriptor, Manifest, OCI_INDEX},
};

async fn push(
    client: &Client,
    image: PushImage,
    memory: &Arc<Memory>,
    log: &Log,
) -> types::Result<Vec<crate::registry::Pushed>> {
    let to = image.reference.clone();
    client
        .push(
            &to,
            vec![image],
            &Credentials::default(),
            memory.clone(),
            log.report(),
        )
        .await
}

async fn pull(name: &str, memory: &Arc<Memory>, log: &Log) -> types::Result<Vec<Pulled>> {
    client()
        .pull(&request(name), memory.clone(), log.report())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn push_then_pull_gives_the_same() {
    let registry = Registry::open();
    let name = format!("{}/a/b:1", registry.host);
    let layers: Vec<Vec<u8>> = (0..7)
        .map(|seed| content(seed, 200_000 + usize::from(seed)))
        .collect();
    let (image, source) = image(&name, &layers);
    let id = Digest::of(&image.config);
    bounded(async {
        let log = Log::default();
        let pushed = push(&client(), image.clone(), &source, &log).await.unwrap();
        let top = image.layers[6].diff_id.short();
        let descriptor = &pushed[0].descriptor;
        assert_eq!(
            log.lines()[0],
            format!("The push refers to repository [{}/a/b]", registry.host)
        );
        assert_eq!(log.lines()[1], format!("{top}: Preparing"));
        assert!(log.has(&format!("{}: Waiting", image.layers[0].diff_id.short())));
        assert!(log.has(&format!("{top}: Pushing")) && log.has(&format!("{top}: Pushed")));
        assert!(log.has(&format!(
            "1: digest: {} size: {}",
            descriptor.digest, descriptor.size
        )));
        assert_eq!(
            log.all().last().unwrap().aux.as_ref().unwrap()["Digest"],
            descriptor.digest.as_str()
        );

        let (log, sink) = (Log::default(), Arc::new(Memory::default()));
        let pulled = pull(&name, &sink, &log).await.unwrap();
        assert_eq!(
            (&pulled[0].id, &pulled[0].digest),
            (&id, &descriptor.digest)
        );
        assert_eq!(
            sink.layers.lock().unwrap().values().collect::<Vec<_>>(),
            source.layers.lock().unwrap().values().collect::<Vec<_>>()
        );
        let layer = pushed[0].layers[0].digest.short();
        let of_layer: Vec<String> = log
            .lines()
            .into_iter()
            .filter(|line| line.starts_with(layer))
            .collect();
        let mut words: Vec<&str> = of_layer
            .iter()
            .map(|line| &line[layer.len() + 2..])
            .collect();
        words.dedup();
        assert_eq!(
            words,
            [
                "Pulling fs layer",
                "Downloading",
                "Verifying Checksum",
                "Download complete",
                "Extracting",
                "Pull complete"
            ]
        );
        assert_eq!(log.lines()[0], "1: Pulling from a/b");
        let end = log.lines().split_off(log.lines().len() - 2);
        assert_eq!(
            end,
            [
                format!("Digest: {}", descriptor.digest),
                format!("Status: Downloaded newer image for {name}")
            ]
        );

        let log = Log::default();
        pull(&name, &sink, &log).await.unwrap();
        assert_eq!(
            log.lines().last().unwrap(),
            &format!("Status: Image is up to date for {name}")
        );
        assert_eq!(log.lines().len(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_spared() {
    let registry = Registry::open();
    let layers = [content(1, 50_000), content(2, 60_000)];
    bounded(async {
        let name = format!("{}/one:1", registry.host);
        let (mut image, source) = image(&name, &layers);
        let log = Log::default();
        let pushed = push(&client(), image.clone(), &source, &log).await.unwrap();

        let known = |at: usize| KnownBlob {
            repository: format!("{}/one", registry.host),
            descriptor: pushed[0].layers[at].clone(),
        };
        image.layers[0].known = vec![known(0)];
        image.layers[1].known = vec![known(1)];
        let log = Log::default();
        let again = push(&client(), image.clone(), &source, &log).await.unwrap();
        assert_eq!(again[0].descriptor, pushed[0].descriptor);
        assert!(log.has(&format!(
            "{}: Layer already exists",
            image.layers[0].diff_id.short()
        )));
        assert!(!log.lines().iter().any(|line| line.ends_with("Pushing")));

        let log = Log::default();
        image.reference = format!("{}/two/deep", registry.host).parse().unwrap();
        let mounted = push(&client(), image.clone(), &source, &log).await.unwrap();
        assert_eq!(mounted[0].descriptor, pushed[0].descriptor);
        assert!(log.has(&format!(
            "{}: Mounted from one",
            image.layers[0].diff_id.short()
        )));

        // A layer that is known but gone is uploaded.
        let log = Log::default();
        image.layers[0].known[0].descriptor = Descriptor::of("", b"gone");
        push(&client(), image.clone(), &source, &log).await.unwrap();
        assert!(log.has(&format!("{}: Pushed", image.layers[0].diff_id.short())));

        // A pull spares what the sink has.
        let sink = Arc::new(Memory::default());
        sink.layers
            .lock()
            .unwrap()
            .insert(image.layers[0].diff_id.clone(), layers[0].clone());
        let log = Log::default();
        pull(&name, &sink, &log).await.unwrap();
        assert!(log.has(&format!(
            "{}: Already exists",
            pushed[0].layers[0].digest.short()
        )));
        assert!(log.has(&format!(
            "{}: Pull complete",
            pushed[0].layers[1].digest.short()
        )));
    })
    .await;
}

/// Puts blobs and manifests of forms that the client itself does not make.
async fn put(
    reference: &Reference,
    blobs: &[(Descriptor, Bytes)],
    manifests: &[(String, String, Vec<u8>)],
) {
    let connection = client()
        .connect(
            reference,
            &Credentials::default(),
            Intent::Push { mounts: &[] },
        )
        .await
        .unwrap();
    for (descriptor, bytes) in blobs {
        connection.put_small(descriptor, bytes).await.unwrap();
    }
    for (at, media_type, bytes) in manifests {
        let headers = [("content-type".parse().unwrap(), media_type.parse().unwrap())]
            .into_iter()
            .collect();
        let url = connection.url(&format!("manifests/{at}")).unwrap();
        connection
            .send(Method::PUT, &url, &headers, Some(bytes.clone().into()))
            .await
            .unwrap();
    }
}

/// Publishes, under `reference`, one image of `tars` (as gzip, zstd and plain) for each of two
/// platforms; gives the digest of the index and its entries.
pub(super) async fn publish_index(
    reference: &Reference,
    tars: &[Vec<u8>; 3],
) -> (Digest, Vec<Descriptor>) {
    let compressed = [
        (
            "application/vnd.oci.image.layer.v1.tar+gzip",
            gzip(&mut tars[0].as_slice(), Vec::new()).unwrap(),
        ),
        (
            "application/vnd.oci.image.layer.v1.tar+zstd",
            zstd::encode_all(tars[1].as_slice(), 3).unwrap(),
        ),
        ("application/vnd.oci.image.layer.v1.tar", tars[2].clone()),
    ];
    let layers: Vec<(Descriptor, Bytes)> = compressed
        .into_iter()
        .map(|(kind, bytes)| (Descriptor::of(kind, &bytes), bytes.into()))
        .collect();
    let descriptors: Vec<Descriptor> = layers
        .iter()
        .map(|(descriptor, _)| descriptor.clone())
        .collect();
    let (mut blobs, mut manifests, mut entries) = (layers.clone(), Vec::new(), Vec::new());
    for architecture in ["amd64", "s390x"] {
        let config = config_of(tars, architecture);
        let manifest = Manifest::for_layers(Descriptor::of("", &config), &descriptors);
        let bytes = manifest.to_bytes().unwrap();
        let platform = Some(Platform::new("linux", architecture, ""));
        let entry = Descriptor {
            platform,
            ..Descriptor::of(&manifest.media_type, &bytes)
        };
        blobs.push((Descriptor::of("", &config), config));
        manifests.push((entry.digest.to_string(), manifest.media_type, bytes));
        entries.push(entry);
    }
    let index =
        serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries })
            .to_string();
    manifests.push(("x".into(), OCI_INDEX.into(), index.clone().into_bytes()));
    put(reference, &blobs, &manifests).await;
    (Digest::of(index.as_bytes()), entries)
}

#[tokio::test(flavor = "multi_thread")]
async fn index_of_gzip_zstd_and_plain() {
    let registry = Registry::open();
    let reference: Reference = format!("{}/multi:x", registry.host).parse().unwrap();
    let tars = [content(1, 90_000), content(2, 90_000), content(3, 90_000)];
    bounded(async {
        let (index, entries) = publish_index(&reference, &tars).await;
        for (architecture, entry) in ["amd64", "s390x"].iter().zip(&entries) {
            let (log, sink) = (Log::default(), Arc::new(Memory::default()));
            let request = crate::registry::PullRequest {
                platform: Some(Platform::new("linux", architecture, "")),
                ..request(&reference.to_string())
            };
            let pulled = client()
                .pull(&request, sink.clone(), log.report())
                .await
                .unwrap();
            assert_eq!(pulled[0].id, Digest::of(&config_of(&tars, architecture)));
            assert_eq!(pulled[0].digest, index);
            assert_eq!(sink.layers.lock().unwrap().len(), 3);

            // By the digest of the manifest.
            let pinned = reference.with_digest(entry.digest.clone());
            let resolved = client()
                .resolve(&pinned, None, &Credentials::default())
                .await
                .unwrap();
            assert_eq!(resolved.descriptor.digest, entry.digest);
        }
        let wanted = Platform::new("linux", "arm64", "");
        let error = client()
            .resolve(&reference, Some(&wanted), &Credentials::default())
            .await
            .unwrap_err();
        assert_eq!(
            error.message,
            "no matching manifest for linux/arm64 in the manifest list entries"
        );

        let seen = client()
            .inspect(&reference, &Credentials::default())
            .await
            .unwrap();
        assert_eq!(seen.descriptor.digest, index);
        assert_eq!(
            seen.platforms
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["linux/amd64", "linux/s390x"]
        );
        let seen = client()
            .inspect(
                &reference.with_digest(entries[1].digest.clone()),
                &Credentials::default(),
            )
            .await
            .unwrap();
        assert_eq!(
            serde_json::to_value(&seen.platforms).unwrap(),
            serde_json::json!([{"architecture": "s390x", "os": "linux"}])
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tags() {
    let registry = Registry::open();
    bounded(async {
        for (tag, seed) in [("1", 1), ("2", 2), ("3", 1)] {
            let (image, source) = image(
                &format!("{}/many:{tag}", registry.host),
                &[content(seed, 5_000)],
            );
            push(&client(), image, &source, &Log::default())
                .await
                .unwrap();
        }
        let name = format!("{}/many", registry.host);
        let (log, sink) = (Log::default(), Arc::new(Memory::default()));
        let all = crate::registry::PullRequest {
            all_tags: true,
            ..request(&name)
        };
        let pulled = client()
            .pull(&all, sink.clone(), log.report())
            .await
            .unwrap();
        assert_eq!(pulled.len(), 3);
        assert_eq!(sink.images.lock().unwrap().len(), 3);
        assert_eq!(
            log.lines().last().unwrap(),
            &format!("Status: Downloaded newer image for {name}")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords() {
    let registry = Registry::with_password();
    let name = format!("{}/private:1", registry.host);
    let (image, source) = image(&name, &[content(1, 5_000)]);
    let good = Credentials::basic("u", "secret");
    let bad = Credentials::basic("u", "wrong");
    bounded(async {
        let to = &image.reference;
        let push = |credentials: &Credentials| {
            let (client, image, credentials, source) =
                (client(), image.clone(), credentials.clone(), source.clone());
            async move {
                client
                    .push(
                        to,
                        vec![image],
                        &credentials,
                        source,
                        Log::default().report(),
                    )
                    .await
            }
        };
        assert_eq!(
            push(&Credentials::default()).await.unwrap_err().message,
            "no basic auth credentials"
        );
        assert_eq!(
            push(&bad).await.unwrap_err().message,
            "unauthorized: authentication required"
        );
        push(&good).await.unwrap();

        let pull = |credentials: &Credentials| {
            let request = crate::registry::PullRequest {
                credentials: credentials.clone(),
                ..request(&name)
            };
            async move {
                client()
                    .pull(
                        &request,
                        Arc::new(Memory::default()),
                        Log::default().report(),
                    )
                    .await
            }
        };
        let error = pull(&Credentials::default()).await.unwrap_err();
        assert_eq!(
            error.message,
            format!(
                "Head \"http://{}/v2/private/manifests/1\": no basic auth credentials",
                registry.host
            )
        );
        let error = pull(&bad).await.unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::System, "unauthorized: authentication required")
        );
        pull(&good).await.unwrap();

        assert_eq!(
            client().check(&good, &registry.host).await.unwrap().0,
            "Login Succeeded"
        );
        let error = client()
            .check(&bad, &format!("http://{}/v1/", registry.host))
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Unauthorized);
        assert_eq!(
            error.message,
            format!(
                "login attempt to http://{}/v2/ failed with status: 401 Unauthorized",
                registry.host
            )
        );
        let error = client().inspect(to, &bad).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unauthorized);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there() {
    let registry = Registry::open();
    let host = registry.host.clone();
    bounded(async {
        let sink = Arc::new(Memory::default());
        let log = Log::default();
        let error = pull(&format!("{host}/none:1"), &sink, &log)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
        assert_eq!(
            error.message,
            format!("manifest for {host}/none:1 not found: manifest unknown: manifest unknown")
        );
        // Nothing was reported: the error is the answer, not the end of a stream.
        assert!(log.lines().is_empty());
        drop(registry);
        let error = pull(&format!("{host}/none:1"), &sink, &log)
            .await
            .unwrap_err();
        assert_eq!(
            error.message,
            format!("Get \"http://{host}/v2/\": dial tcp {host}: connect: connection refused")
        );
        let error = client()
            .check(&Credentials::default(), &host)
            .await
            .unwrap_err();
        assert_eq!(
            error.message,
            format!("Get \"http://{host}/v2/\": dial tcp {host}: connect: connection refused")
        );
        let error = pull("kraud.invalid/none:1", &sink, &log).await.unwrap_err();
        assert!(
            error
                .message
                .starts_with("Get \"https://kraud.invalid/v2/\": "),
            "{}",
            error.message
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let tls = Tls {
        certificate: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
    };
    let registry = Registry::with_tls(&tls);
    let (image, source) = image(&format!("{}/safe:1", registry.host), &[content(1, 5_000)]);
    bounded(async {
        // Loopback takes any certificate, as docker does.
        push(&client(), image, &source, &Log::default())
            .await
            .unwrap();
        let trusting = client_with(Options {
            roots: vec![tls.certificate.clone().into_bytes()],
            ..Options::default()
        });
        let port = registry.host.rsplit(':').next().unwrap();
        let base = reqwest::Url::parse(&format!("https://127.0.0.1:{port}/")).unwrap();
        trusting.ping_verified(&base).await.unwrap();
        let error = client().ping_verified(&base).await.unwrap_err();
        let text =
            "tls: failed to verify certificate: x509: certificate signed by unknown authority";
        assert_eq!(error.message, format!("Get \"{base}v2/\": {text}"));
    })
    .await;
}
