//! Driver and device over a real pseudo-terminal: the port of the daemon, the device in its own process.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use autoglm_drivers::link::{LinkAddress, Opener};
use autoglm_drivers::port::{LinkControl, LinkIndex, Port, PortError, PortEvent, port};
use autoglm_drivers::serial::SerialPlace;
use autoglm_protocol::{
    Config, FaultCode, PeerInfo, Reply, Request, RequestFailure, RequestId, Security, Value,
};
use autoglm_tests::process::{Process, program, state, wait_for};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);
const LINK: LinkIndex = LinkIndex(0);

struct Line {
    port: Port,
    control: LinkControl,
    events: mpsc::Receiver<PortEvent>,
    end: JoinHandle<()>,
    cancel: CancellationToken,
    peer: PeerInfo,
}

impl Line {
    async fn next(&mut self) -> PortEvent {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event.expect("something happens").expect("the port lives")
    }
}

fn device(directory: &Path, options: &[&str]) -> Process {
    let mut command = Command::new(program("simulated-device").unwrap());
    command
        .arg("lamp")
        .arg("--pty")
        .arg(directory.join("lamp"))
        .arg("--state")
        .arg(directory.join("lamp.json"))
        .args(options);
    let process = Process::start(&mut command).unwrap();
    wait_for("the device's line", PATIENCE, || {
        directory.join("lamp").exists() && directory.join("lamp.json").exists()
    })
    .unwrap();
    process
}

async fn connect(directory: &Path, boot_id: u32, resume: Duration) -> Line {
    let (up, mut events) = mpsc::channel(16);
    let (control, task) = port(up);
    let cancel = CancellationToken::new();
    let config = Config {
        resume_window: resume,
        ..Config::default()
    };
    let end = tokio::spawn(task.run(config, Security::None, boot_id, cancel.clone()));
    control.use_link(LINK, open(directory).await).await;
    let (peer, port) = loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await;
        match event.expect("the device answers").expect("the port lives") {
            PortEvent::Connected { peer, port } => break (peer, port),
            _ => continue,
        }
    };
    Line {
        port,
        control,
        events,
        end,
        cancel,
        peer,
    }
}

async fn open(directory: &Path) -> autoglm_drivers::link::Link {
    let path = directory.join("lamp");
    let address = LinkAddress::Serial {
        place: SerialPlace::Path(path),
        baud: 115_200,
    };
    Opener::default().open(&address).await.unwrap()
}

fn level(percent: i64) -> Request {
    Request::Invoke {
        action: "set_brightness".into(),
        input: Value::Map(vec![("level".into(), Value::Int(percent))]),
    }
}

#[tokio::test]
async fn a_command_moves_the_device_and_its_answer_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let _device = device(directory.path(), &[]);
    let mut line = connect(directory.path(), 1, Duration::ZERO).await;

    let answer = line
        .port
        .request(RequestId(1), Request::Describe, PATIENCE)
        .await
        .unwrap();
    let Reply::Description { hash, document } = answer.reply else {
        panic!("{answer:?}")
    };
    assert_eq!(line.peer.description_hash, Some(hash));
    assert!(String::from_utf8(document).unwrap().contains("Desk lamp"));

    let observed = line
        .port
        .request(
            RequestId(2),
            Request::Observe {
                property: "brightness".into(),
            },
            PATIENCE,
        )
        .await
        .unwrap();
    assert_eq!(observed.reply, Reply::Value(Value::Int(0)));

    let answer = line
        .port
        .request(RequestId(3), level(40), PATIENCE)
        .await
        .unwrap();
    assert!(answer.written_after <= answer.answered_after);
    assert_eq!(
        state(&directory.path().join("lamp.json")).unwrap()["brightness"],
        40
    );
    let changed = line.next().await;
    assert!(
        matches!(&changed, PortEvent::PropertyChanged { property, value: Value::Int(40) } if property == "brightness"),
        "{changed:?}"
    );

    line.cancel.cancel();
    line.end.await.unwrap();
}

#[tokio::test]
async fn a_repeated_request_is_executed_once_even_over_a_new_connection() {
    let directory = tempfile::tempdir().unwrap();
    let _device = device(directory.path(), &[]);
    let line = connect(directory.path(), 1, Duration::ZERO).await;
    let toggle = || Request::Invoke {
        action: "toggle".into(),
        input: Value::Null,
    };
    line.port
        .request(RequestId(99), toggle(), PATIENCE)
        .await
        .unwrap();
    line.cancel.cancel();
    line.end.await.unwrap();

    let line = connect(directory.path(), 2, Duration::ZERO).await;
    line.port
        .request(RequestId(99), toggle(), PATIENCE)
        .await
        .unwrap();
    let shown = state(&directory.path().join("lamp.json")).unwrap();
    assert_eq!(
        (&shown["on"], &shown["executed"]),
        (&true.into(), &1.into()),
        "{shown}"
    );
}

#[tokio::test]
async fn a_noisy_line_loses_and_doubles_nothing() {
    let seed = rand::random::<u32>().to_string();
    eprintln!("seed {seed}");
    let directory = tempfile::tempdir().unwrap();
    let _device = device(
        directory.path(),
        &["--garbled", "0.002", "--lost", "0.001", "--seed", &seed],
    );
    let line = connect(directory.path(), 1, Duration::ZERO).await;
    for number in 1..=40 {
        let answer = line
            .port
            .request(
                RequestId(number),
                level(i64::try_from(number).unwrap()),
                PATIENCE,
            )
            .await;
        assert!(
            matches!(
                answer.as_ref().map(|answer| &answer.reply),
                Ok(Reply::Done(_))
            ),
            "seed {seed}, {number}: {answer:?}"
        );
        assert_eq!(
            state(&directory.path().join("lamp.json")).unwrap()["brightness"],
            number,
            "seed {seed}"
        );
    }
    assert_eq!(
        state(&directory.path().join("lamp.json")).unwrap()["executed"],
        40,
        "seed {seed}"
    );
}

#[tokio::test]
async fn a_device_that_dies_takes_the_link_and_whoever_waits_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut device = device(directory.path(), &["--delay-ms", "60000"]);
    let mut line = connect(directory.path(), 1, Duration::ZERO).await;
    let port = line.port.clone();
    let waiting =
        tokio::spawn(async move { port.request(RequestId(1), level(40), PATIENCE).await });
    // The device has the command when it has acknowledged a later one; reading is answered at once.
    let on = || Request::Read {
        property: "on".into(),
    };
    line.port
        .request(RequestId(2), on(), PATIENCE)
        .await
        .unwrap();
    device.kill();
    let lost = line.next().await;
    assert!(
        matches!(lost, PortEvent::LinkLost { link: LINK, .. }),
        "{lost:?}"
    );
    let failure = waiting.await.unwrap().unwrap_err();
    assert!(
        matches!(
            failure,
            PortError::Failed(RequestFailure::ConnectionLost { .. })
        ),
        "{failure}"
    );
    assert!(line.port.is_closed());
    assert_eq!(
        line.port.request(RequestId(3), level(1), PATIENCE).await,
        Err(PortError::NotConnected)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_an_observer_outlive_a_link_that_is_closed_and_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let _device = device(directory.path(), &["--delay-ms", "300"]);
    let mut line = connect(directory.path(), 1, Duration::from_secs(60)).await;
    let observe = Request::Observe {
        property: "brightness".into(),
    };
    line.port
        .request(RequestId(1), observe, PATIENCE)
        .await
        .unwrap();
    let port = line.port.clone();
    let waiting =
        tokio::spawn(async move { port.request(RequestId(2), level(40), PATIENCE).await });
    wait_for("the lamp to work", PATIENCE, || {
        state(&directory.path().join("lamp.json"))
            .is_ok_and(|state| state["working"] == "set_brightness")
    })
    .unwrap();
    line.control.leave_link().await;
    assert!(matches!(
        line.next().await,
        PortEvent::Interrupted { link: None }
    ));
    // Taken although no link is there.
    let port = line.port.clone();
    let on = Request::Read {
        property: "on".into(),
    };
    let asked = tokio::spawn(async move { port.request(RequestId(3), on, PATIENCE).await });
    wait_for("the lamp to have done it", PATIENCE, || {
        state(&directory.path().join("lamp.json")).is_ok_and(|state| state["executed"] == 1)
    })
    .unwrap();
    line.control
        .use_link(LINK, open(directory.path()).await)
        .await;
    assert!(matches!(
        waiting.await.unwrap().unwrap().reply,
        Reply::Done(_)
    ));
    assert_eq!(
        asked.await.unwrap().unwrap().reply,
        Reply::Value(Value::Bool(true))
    );
    // The change may have come with the packet that resumed the connection, and is told first then.
    let (first, second) = (line.next().await, line.next().await);
    for event in [&first, &second] {
        let is_one_of_them = matches!(
            event,
            PortEvent::Resumed { link: LINK }
                | PortEvent::PropertyChanged {
                    value: Value::Int(40),
                    ..
                }
        );
        assert!(is_one_of_them, "{event:?}");
    }
    assert_ne!(
        std::mem::discriminant(&first),
        std::mem::discriminant(&second)
    );
    let shown = state(&directory.path().join("lamp.json")).unwrap();
    assert_eq!(
        (&shown["executed"], &shown["connections"]),
        (&1.into(), &1.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_stays_away_ends_the_connection_when_its_time_has_passed_and_not_before() {
    let directory = tempfile::tempdir().unwrap();
    let _device = device(directory.path(), &["--delay-ms", "60000"]);
    let mut line = connect(directory.path(), 1, Duration::from_millis(500)).await;
    let port = line.port.clone();
    let waiting =
        tokio::spawn(async move { port.request(RequestId(1), level(40), PATIENCE).await });
    wait_for("the lamp to work", PATIENCE, || {
        state(&directory.path().join("lamp.json"))
            .is_ok_and(|state| state["working"] == "set_brightness")
    })
    .unwrap();
    line.control.leave_link().await;
    assert!(matches!(line.next().await, PortEvent::Interrupted { .. }));
    assert!(!line.port.is_closed());
    assert!(matches!(line.next().await, PortEvent::Lost { .. }));
    assert!(matches!(
        waiting.await.unwrap(),
        Err(PortError::Failed(RequestFailure::ConnectionLost { .. }))
    ));
}

#[tokio::test]
async fn the_device_has_the_last_word() {
    let directory = tempfile::tempdir().unwrap();
    let _device = device(directory.path(), &["--fails", "turn_on"]);
    let line = connect(directory.path(), 1, Duration::ZERO).await;
    let code = async |id, request| match line.port.request(RequestId(id), request, PATIENCE).await {
        Err(PortError::Failed(RequestFailure::Fault(fault))) => fault.code,
        other => panic!("{other:?}"),
    };
    let invoke = |action: &str| Request::Invoke {
        action: action.into(),
        input: Value::Null,
    };
    assert_eq!(code(1, level(400)).await, FaultCode::OutOfRange);
    assert_eq!(
        code(2, invoke("explode")).await,
        FaultCode::UnknownAffordance
    );
    assert_eq!(code(3, invoke("turn_on")).await, FaultCode::Failed);
    assert_eq!(
        code(
            4,
            Request::Read {
                property: "colour".into()
            }
        )
        .await,
        FaultCode::UnknownAffordance
    );
}

#[tokio::test]
async fn a_port_that_is_not_there_or_busy_is_said_with_its_remedy() {
    let message = async |address: &str| {
        let address: LinkAddress = address.parse().unwrap();
        let error = Opener::default().open(&address).await.err().unwrap();
        error.to_string()
    };
    let missing = message("serial:///dev/no-such-port").await;
    assert!(
        missing.contains("/dev/no-such-port") && missing.contains("plugged in"),
        "{missing}"
    );
    let wrong = message("serial:///dev/null").await;
    assert!(wrong.contains("/dev/null"), "{wrong}");
}

#[tokio::test]
async fn a_busy_port_names_the_process_that_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lamp");
    let _line = autoglm_tests::device::line::Line::pseudo_terminal(&path).unwrap();
    let address: LinkAddress = format!("serial://{}", path.display()).parse().unwrap();
    // Another process has it, as a terminal program would: exclusively.
    let mut other = std::process::Command::new("flock")
        .args(["--exclusive", "--nonblock"])
        .arg(&path)
        .args(["-c", "echo held; exec cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = String::new();
    let output = other.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut held).unwrap();
    assert_eq!(held, "held\n");
    let busy = Opener::default().open(&address).await.err().unwrap();
    let text = busy.to_string();
    let (by_name, by_id) = ("(process ", format!("{}", other.id()));
    assert!(
        text.contains("in use by") && text.contains(by_name) && text.contains(&by_id),
        "{text}"
    );
    drop(other.stdin.take());
    other.wait().unwrap();
    Opener::default().open(&address).await.unwrap();
}
