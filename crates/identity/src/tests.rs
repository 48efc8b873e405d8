use rcgen::KeyPair;
use store::{Embedded, Txn};
use types::{IdRange, PoolName, native};

use super::{record::key, *};

struct Bench {
    directory: tempfile::TempDir,
    store: Arc<dyn Store>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(&directory.path().join("store.db")).unwrap());
        Self { directory, store }
    }
    async fn open(&self) -> Identities {
        Identities::open(self.store.clone(), "test").await.unwrap()
    }
    /// All that is on the disk.
    fn bytes(&self) -> Vec<u8> {
        std::fs::read_dir(self.directory.path())
            .unwrap()
            .flat_map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .collect()
    }
}

fn name(text: &str) -> Namespace {
    text.parse().unwrap()
}

fn wanted(role: Role) -> native::TokenCreate {
    native::TokenCreate {
        role,
        description: "for a test".into(),
        expires: None,
        namespace: None,
    }
}

fn certificate_wanted(key: &KeyPair) -> native::CertificateCreate {
    native::CertificateCreate {
        public_key: key.public_key_pem(),
        seconds: 3600,
    }
}

/// A certificate that was asked for with a token.
async fn certified(identities: &Identities, secret: &str) -> native::Certificate {
    let caller = identities.by_token(secret).unwrap();
    let key = KeyPair::generate().unwrap();
    identities
        .certificate_create(&caller, &certificate_wanted(&key))
        .await
        .unwrap()
}

fn der(certificate: &native::Certificate) -> Vec<u8> {
    certificates(&certificate.certificate).unwrap().remove(0)
}

#[tokio::test]
async fn tokens_come_and_go() {
    let bench = Bench::new();
    let identities = bench.open().await;
    let (_, owner) = identities
        .tenant_create(&name("shop"), PoolName::default())
        .await
        .unwrap();
    let caller = identities.by_token(&owner.secret).unwrap();
    assert_eq!((caller.namespace, caller.role), (name("shop"), Role::Owner));
    assert_eq!(
        identities
            .tenant_create(&name("shop"), PoolName::default())
            .await
            .unwrap_err()
            .kind,
        Kind::Conflict
    );
    assert_eq!(
        identities
            .tenant_create(&Namespace::default(), PoolName::default())
            .await
            .unwrap_err()
            .kind,
        Kind::Conflict
    );

    let reader = identities
        .token_create(&name("shop"), &wanted(Role::Reader))
        .await
        .unwrap();
    // What is kept survives a restart, and is no secret.
    let again = bench.open().await;
    assert_eq!(again.by_token(&reader.secret).unwrap().role, Role::Reader);
    assert_eq!(again.tokens(&name("shop")).len(), 2);
    assert_eq!(again.tokens(&name("other")).len(), 0);
    for secret in [&owner.secret, &reader.secret] {
        let hidden = &secret[secret.len() - 20..];
        let found = bench
            .bytes()
            .windows(hidden.len())
            .any(|window| window == hidden.as_bytes());
        assert!(!found, "a secret is on the disk");
        assert!(!format!("{reader:?}").contains(hidden));
    }

    // Only in its own namespace is it known.
    let id = &reader.token.id;
    assert_eq!(
        identities
            .token_revoke(&name("other"), id)
            .await
            .unwrap_err()
            .kind,
        Kind::NotFound
    );
    let caller = identities.by_token(&reader.secret).unwrap();
    identities.token_revoke(&name("shop"), id).await.unwrap();
    assert_eq!(
        identities.by_token(&reader.secret).unwrap_err().kind,
        Kind::Unauthorized
    );
    tokio::time::timeout(Duration::from_secs(5), caller.ended())
        .await
        .expect("who has it is told");
    assert!(bench.open().await.by_token(&reader.secret).is_err());
}

#[tokio::test]
async fn what_is_no_token() {
    let bench = Bench::new();
    let identities = bench.open().await;
    let (_, owner) = identities
        .tenant_create(&name("shop"), PoolName::default())
        .await
        .unwrap();
    let mut wrong = owner.secret.clone();
    let last = if wrong.ends_with('a') { 'b' } else { 'a' };
    wrong.pop();
    wrong.push(last);
    let messages: Vec<String> = [
        "",
        "kr_",
        "password",
        &wrong,
        &owner.secret.replace("kr_", "kr_a"),
    ]
    .iter()
    .map(|text| {
        let error = identities.by_token(text).unwrap_err();
        assert_eq!(error.kind, Kind::Unauthorized);
        error.message
    })
    .collect();
    assert!(
        messages.windows(2).all(|two| two[0] == two[1]),
        "nothing is told apart"
    );
}

#[tokio::test]
async fn tokens_expire() {
    let bench = Bench::new();
    let identities = bench.open().await;
    identities
        .tenant_create(&name("shop"), PoolName::default())
        .await
        .unwrap();
    let soon = Time::from_unix_nanos(i128::from(Time::now().unix_nanos()) + 300_000_000);
    let token = identities
        .token_create(
            &name("shop"),
            &native::TokenCreate {
                expires: Some(soon),
                ..wanted(Role::Owner)
            },
        )
        .await
        .unwrap();
    let caller = identities.by_token(&token.secret).unwrap();
    tokio::time::timeout(Duration::from_secs(5), caller.ended())
        .await
        .expect("its end is told");
    let error = identities.by_token(&token.secret).unwrap_err();
    assert!(error.message.contains("expired"), "{error}");
    let past = native::TokenCreate {
        expires: Some(soon),
        ..wanted(Role::Owner)
    };
    assert!(identities.token_create(&name("shop"), &past).await.is_err());
}

#[tokio::test]
async fn roles_and_namespaces_fit() {
    let bench = Bench::new();
    let identities = bench.open().await;
    identities
        .tenant_create(&name("shop"), PoolName::default())
        .await
        .unwrap();
    let kind = |result: Result<native::TokenCreated>| result.map_err(|error| error.kind).err();
    let own = Namespace::default();
    for (namespace, role, wrong) in [
        (&own, Role::Operator, None),
        (&own, Role::Reader, None),
        (&own, Role::Owner, Some(Kind::InvalidParameter)),
        (&name("shop"), Role::Operator, Some(Kind::InvalidParameter)),
        (&name("shop"), Role::Push, None),
        (&name("nobody"), Role::Owner, Some(Kind::NotFound)),
    ] {
        assert_eq!(
            kind(identities.token_create(namespace, &wanted(role)).await),
            wrong,
            "{namespace} {role}"
        );
    }
}

#[tokio::test]
async fn certificates_have_the_rights_of_their_token() {
    let bench = Bench::new();
    let identities = bench.open().await;
    let (_, owner) = identities
        .tenant_create(&name("shop"), PoolName::default())
        .await
        .unwrap();
    let made = certified(&identities, &owner.secret).await;
    let key = KeyPair::generate().unwrap();
    let by = bench.open().await.by_certificate(&der(&made)).unwrap();
    assert_eq!((by.namespace.clone(), by.role), (name("shop"), Role::Owner));
    assert_eq!(by.by, Proof::Certificate);
    // It can be renewed by itself.
    let by = identities.by_certificate(&der(&made)).unwrap();
    let next = identities
        .certificate_create(&by, &certificate_wanted(&key))
        .await
        .unwrap();
    identities
        .token_revoke(&name("shop"), &owner.token.id)
        .await
        .unwrap();
    for certificate in [&made, &next] {
        assert_eq!(
            identities
                .by_certificate(&der(certificate))
                .unwrap_err()
                .kind,
            Kind::Unauthorized
        );
    }
    // Not by those who have no token, nor for any length of time.
    let socket = Caller::operator();
    assert!(
        identities
            .certificate_create(&socket, &certificate_wanted(&key))
            .await
            .is_err()
    );
    let (_, owner) = identities
        .tenant_create(&name("other"), PoolName::default())
        .await
        .unwrap();
    let caller = identities.by_token(&owner.secret).unwrap();
    for seconds in [0, 60, 400 * 86_400] {
        let wanted = native::CertificateCreate {
            seconds,
            ..certificate_wanted(&key)
        };
        assert!(
            identities
                .certificate_create(&caller, &wanted)
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn tenants_that_close_are_let_in_no_more() {
    let bench = Bench::new();
    let identities = bench.open().await;
    let (_, owner) = identities
        .tenant_create(&name("shop"), PoolName::default())
        .await
        .unwrap();
    let (_, other) = identities
        .tenant_create(&name("other"), PoolName::default())
        .await
        .unwrap();
    let made = certified(&identities, &owner.secret).await;
    identities.tenant_close(&name("shop")).await.unwrap();
    assert_eq!(
        identities
            .token_create(&name("shop"), &wanted(Role::Owner))
            .await
            .unwrap_err()
            .kind,
        Kind::NotFound
    );
    for identities in [identities.clone(), bench.open().await] {
        assert!(identities.by_token(&owner.secret).is_err());
        assert!(identities.by_certificate(&der(&made)).is_err());
        assert!(identities.by_token(&other.secret).is_ok());
        assert!(identities.tenants().iter().any(|tenant| tenant.removing));
    }
    identities.tenant_forget(&name("shop")).await.unwrap();
    assert_eq!(identities.tenants().len(), 1);
    assert_eq!(
        identities
            .tenant_close(&name("shop"))
            .await
            .unwrap_err()
            .kind,
        Kind::NotFound
    );
}

#[tokio::test]
async fn no_two_tenants_have_the_same_ids() {
    let bench = Bench::new();
    let identities = bench.open().await;
    for tenant in ["a", "b", "c"] {
        identities
            .tenant_create(&name(tenant), PoolName::default())
            .await
            .unwrap();
    }
    let ids = |identities: &Identities, tenant| identities.ids(&name(tenant)).unwrap();
    assert_eq!(ids(&identities, "b"), IdRange::of_tenant(1).unwrap());
    identities.tenant_forget(&name("b")).await.unwrap();
    assert_eq!(identities.ids(&name("b")), None);
    identities
        .tenant_create(&name("d"), PoolName::default())
        .await
        .unwrap();
    assert_eq!(ids(&identities, "d"), IdRange::of_tenant(1).unwrap());
    // An earlier kraud's tenants get theirs at the first start.
    let old = br#"{"v":1,"d":{"name":"old","created":"2026-01-02T03:04:05Z"}}"#;
    let txn = Txn::new().put(key::tenant(&name("old")), old.to_vec());
    bench.store.commit(txn).await.unwrap();
    for _ in 0..2 {
        let identities = bench.open().await;
        assert_eq!(ids(&identities, "old"), IdRange::of_tenant(3).unwrap());
        assert_eq!(ids(&identities, "c"), IdRange::of_tenant(2).unwrap());
    }
    assert_eq!(identities.ids(&Namespace::default()), None);
}

#[tokio::test]
async fn servers_show_what_leads_to_every_authority() {
    let bench = Bench::new();
    let identities = bench.open().await;
    let (first, _) = identities.authority_fingerprint().unwrap();
    let life = Duration::from_secs(3600);
    let names = ["kraud.example".to_owned()];
    let address = [IpAddr::from([127, 0, 0, 1])];
    let before = identities.server_identity(&names, &address, life).unwrap();
    assert_eq!(before.chain.len(), 2);
    identities.authority_rotate("test").await.unwrap();
    let (second, _) = identities.authority_fingerprint().unwrap();
    assert_ne!(first, second);
    let after = identities.server_identity(&names, &address, life).unwrap();
    let shown: Vec<String> = after.chain.iter().map(|der| fingerprint(der)).collect();
    assert!(shown.contains(&first) && shown.contains(&second));
    // One's own, the second signed by the first, and both.
    assert_eq!(shown.len(), 4);
    assert_eq!(identities.client_roots().unwrap().len(), 2);
    assert_eq!(identities.authorities_pem().matches("BEGIN").count(), 2);
}
