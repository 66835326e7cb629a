//! TLS 1.3 with client certificates between our MQTT client and a real mosquitto; what is wrong is named, with its remedy.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use autoglm_drivers::backoff::Backoff;
use autoglm_drivers::mqtt::{
    self, Access, Broker, BrokerState, Client, ClientConfig, ClientFiles, Login, Publication,
    TlsFiles, Transport,
};
use autoglm_tests::edge_box::PATIENCE;
use autoglm_tests::mosquitto::Mosquitto;
use autoglm_tests::pki::{Authority, Signed, Valid};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Short, so that a state that should not last shows; a refusal rests half of the maximum at least.
const BACKOFF: Backoff = Backoff {
    min: Duration::from_millis(20),
    max: Duration::from_secs(20),
    healthy_after: Duration::from_secs(5),
};

/// An authority, what it signed, and a broker that asks for certificates of it.
struct Site {
    directory: TempDir,
    authority: Authority,
    ours: Signed,
    broker: Mosquitto,
    port: u16,
}

impl Site {
    fn new(server_names: &[&str], valid: Valid) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new(directory.path(), "authority").unwrap();
        let server = authority.sign("server", server_names, valid).unwrap();
        let ours = authority.sign("box", &["box-1"], Valid::Now).unwrap();
        let port = Mosquitto::free_port().unwrap();
        let lines = format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\ntls_version tlsv1.3",
            authority.file().display(),
            server.certificate.display(),
            server.key.display()
        );
        let broker = Mosquitto::start(directory.path(), port, &lines).unwrap();
        Self {
            directory,
            authority,
            ours,
            broker,
            port,
        }
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            authority: self.authority.file(),
            client: Some(ClientFiles {
                certificate: self.ours.certificate.clone(),
                key: self.ours.key.clone(),
            }),
        }
    }

    /// The cause that the client gives for not being connected.
    async fn refusal(&self, host: &str, files: TlsFiles) -> String {
        refusal(address(host, self.port, Transport::Tls(files), None)).await
    }
}

fn address(host: &str, port: u16, transport: Transport, login: Option<Login>) -> Broker {
    Broker {
        host: host.to_owned(),
        port,
        access: Box::new(Access {
            transport,
            login,
            ..Access::default()
        }),
    }
}

fn connect(broker: Broker) -> (Client, CancellationToken) {
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let config = ClientConfig {
        broker,
        client_id: "box-1".to_owned(),
        subscriptions: vec!["commands".to_owned()],
        birth: None,
        will: None,
        session_expiry: Duration::from_secs(60),
        backoff: BACKOFF,
    };
    let (client, _incoming) = mqtt::spawn(config, &tasks, cancel.clone());
    (client, cancel)
}

async fn refusal(broker: Broker) -> String {
    let (client, cancel) = connect(broker);
    let mut state = client.state();
    let settled = tokio::time::timeout(
        PATIENCE,
        state.wait_for(|state| *state != BrokerState::Starting),
    );
    let settled = settled.await.unwrap().unwrap().clone();
    cancel.cancel();
    match settled {
        BrokerState::Waiting { cause, .. } => cause,
        other => panic!("the broker was accepted: {other:?}"),
    }
}

async fn is_connected(client: &Client) {
    let mut state = client.state();
    let connected = state.wait_for(|state| *state == BrokerState::Connected);
    if tokio::time::timeout(PATIENCE, connected).await.is_err() {
        panic!("{:?}", *client.state().borrow());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_pass_over_tls_1_3_with_both_sides_certified() {
    for (name, host) in [("localhost", "localhost"), ("127.0.0.1", "127.0.0.1")] {
        let site = Site::new(&[name], Valid::Now);
        let (client, _cancel) =
            connect(address(host, site.port, Transport::Tls(site.files()), None));
        is_connected(&client).await;
        let publication = Publication {
            topic: "t".into(),
            payload: b"x".to_vec(),
            ..Publication::default()
        };
        client.publish(publication).await.unwrap();
        // The broker's own word for who we are: the certificate's common name.
        assert!(
            site.broker.log().contains("u'box-1'"),
            "{}",
            site.broker.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_certificate_must_be_current_signed_and_for_the_name_that_is_connected_to() {
    let site = Site::new(&["fleet.example"], Valid::Now);
    let cause = site.refusal("127.0.0.1", site.files()).await;
    assert!(
        cause.contains("127.0.0.1") && cause.contains("fleet.example"),
        "{cause}"
    );

    let other = Authority::new(site.directory.path(), "other").unwrap();
    let files = TlsFiles {
        authority: other.file(),
        ..site.files()
    };
    let cause = site.refusal("127.0.0.1", files).await;
    assert!(cause.contains("tls.ca"), "{cause}");

    let site = Site::new(&["127.0.0.1"], Valid::Formerly);
    let cause = site.refusal("127.0.0.1", site.files()).await;
    assert!(cause.contains("has expired; renew it there"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_certificate_is_checked_before_the_broker_is_asked() {
    let site = Site::new(&["127.0.0.1"], Valid::Now);
    let with = |signed: &Signed| TlsFiles {
        client: Some(ClientFiles {
            certificate: signed.certificate.clone(),
            key: signed.key.clone(),
        }),
        ..site.files()
    };
    let expired = site
        .authority
        .sign("expired", &["box-1"], Valid::Formerly)
        .unwrap();
    let cause = site.refusal("127.0.0.1", with(&expired)).await;
    assert!(cause.contains("expired.pem expired at"), "{cause}");

    let mixed = Signed {
        key: expired.key.clone(),
        ..site.ours.clone()
    };
    let cause = site.refusal("127.0.0.1", with(&mixed)).await;
    assert!(
        cause.contains("expired.key is not the key of") && cause.contains("box.pem"),
        "{cause}"
    );

    let swapped = Signed {
        key: site.ours.certificate.clone(),
        ..site.ours.clone()
    };
    std::fs::set_permissions(&swapped.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let cause = site.refusal("127.0.0.1", with(&swapped)).await;
    assert!(cause.contains("box.pem holds no private key"), "{cause}");

    std::fs::set_permissions(&site.ours.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let cause = site.refusal("127.0.0.1", site.files()).await;
    assert!(
        cause.contains("box.key") && cause.contains("chmod 600"),
        "{cause}"
    );

    let missing = Signed {
        certificate: site.directory.path().join("none.pem"),
        ..site.ours.clone()
    };
    let cause = site.refusal("127.0.0.1", with(&missing)).await;
    assert!(
        cause.contains("none.pem") && cause.contains("No such file"),
        "{cause}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_our_certificate_is_named_and_not_hammered() {
    let site = Site::new(&["127.0.0.1"], Valid::Now);
    let none = TlsFiles {
        client: None,
        ..site.files()
    };
    let cause = site.refusal("127.0.0.1", none).await;
    assert!(cause.contains("certificate"), "{cause}");

    let other = Authority::new(site.directory.path(), "other").unwrap();
    let strange = other.sign("strange", &["box-1"], Valid::Now).unwrap();
    let files = TlsFiles {
        client: Some(ClientFiles {
            certificate: strange.certificate,
            key: strange.key,
        }),
        ..site.files()
    };
    let (client, _cancel) = connect(address("127.0.0.1", site.port, Transport::Tls(files), None));
    let mut state = client.state();
    let waiting = state.wait_for(|state| matches!(state, BrokerState::Waiting { .. }));
    let waiting = tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap()
        .clone();
    let BrokerState::Waiting { cause, .. } = waiting else {
        unreachable!("it waited for that")
    };
    assert!(cause.contains("our certificate"), "{cause}");
    // Time enough for twenty tries of the usual kind; the moment is the test's input.
    let tries = || site.broker.log().matches("New connection").count();
    let before = tries();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(tries(), before, "{}", site.broker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_text_on_a_tls_port_and_tls_on_a_clear_port_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let port = Mosquitto::free_port().unwrap();
    let _broker = Mosquitto::start(directory.path(), port, "allow_anonymous true").unwrap();
    let authority = Authority::new(directory.path(), "authority").unwrap();
    let files = TlsFiles {
        authority: authority.file(),
        client: None,
    };
    let cause = refusal(address("127.0.0.1", port, Transport::Tls(files), None)).await;
    assert!(cause.contains("TLS port"), "{cause}");
    let site = Site::new(&["127.0.0.1"], Valid::Now);
    let cause = refusal(address("127.0.0.1", site.port, Transport::Clear, None)).await;
    println!("clear text to a TLS port: {cause}");
    assert!(!cause.contains("TLS port"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_comes_from_its_file_and_a_wrong_one_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let port = Mosquitto::free_port().unwrap();
    let users = directory.path().join("users");
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&users)
        .args(["box-1", "open sesame"])
        .status()
        .unwrap();
    assert!(made.success());
    let lines = format!("allow_anonymous false\npassword_file {}", users.display());
    let _broker = Mosquitto::start(directory.path(), port, &lines).unwrap();
    let password_file = directory.path().join("password");
    let login = |text: &str| {
        std::fs::write(&password_file, text).unwrap();
        std::fs::set_permissions(&password_file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let login = Login {
            user: "box-1".to_owned(),
            password_file: password_file.clone(),
        };
        address("127.0.0.1", port, Transport::Clear, Some(login))
    };
    let cause = refusal(login("sesame\n")).await;
    assert!(
        cause.contains("authorised") || cause.contains("password"),
        "{cause}"
    );
    let (client, _cancel) = connect(login("open sesame\n"));
    is_connected(&client).await;
}
