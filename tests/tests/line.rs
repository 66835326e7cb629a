//! Driver and device over a real pseudo-terminal: the port of the daemon, the device in its own process.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use autoglm_drivers::link::LinkAddress;
use autoglm_drivers::port::{Identity, Port, PortEnd, PortError, PortEvent, port};
use autoglm_protocol::{
    Config, FaultCode, PeerInfo, Reply, Request, RequestFailure, RequestId, Value,
};
use autoglm_tests::process::{Process, program, state, wait_for};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

struct Line {
    port: Port,
    events: mpsc::Receiver<PortEvent>,
    end: JoinHandle<PortEnd>,
    cancel: CancellationToken,
    peer: PeerInfo,
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

async fn connect(directory: &Path, epoch: u32) -> Line {
    let address = LinkAddress::Serial {
        path: directory.join("lamp"),
        baud: 115_200,
    };
    let (up, mut events) = mpsc::channel(16);
    let (port, task) = port(up);
    let cancel = CancellationToken::new();
    let stream = address.open().unwrap();
    let end = tokio::spawn(task.run(
        stream,
        Config::default(),
        Identity { boot_id: 7, epoch },
        cancel.clone(),
    ));
    let peer = loop {
        match tokio::time::timeout(PATIENCE, events.recv())
            .await
            .expect("the device answers")
            .expect("the port lives")
        {
            PortEvent::Connected(peer) => break peer,
            _ => continue,
        }
    };
    Line {
        port,
        events,
        end,
        cancel,
        peer,
    }
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
    let mut line = connect(directory.path(), 1).await;

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
    let changed = tokio::time::timeout(PATIENCE, line.events.recv())
        .await
        .unwrap();
    assert_eq!(
        changed,
        Some(PortEvent::PropertyChanged {
            property: "brightness".into(),
            value: Value::Int(40)
        })
    );

    line.cancel.cancel();
    assert!(matches!(line.end.await.unwrap(), PortEnd::Cancelled));
}

#[tokio::test]
async fn a_repeated_request_is_executed_once_even_over_a_new_connection() {
    let directory = tempfile::tempdir().unwrap();
    let _device = device(directory.path(), &[]);
    let line = connect(directory.path(), 1).await;
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

    let line = connect(directory.path(), 2).await;
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
    let line = connect(directory.path(), 1).await;
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
async fn a_device_that_dies_ends_the_port_and_says_so_to_who_waits() {
    let directory = tempfile::tempdir().unwrap();
    let mut device = device(directory.path(), &["--delay-ms", "60000"]);
    let line = connect(directory.path(), 1).await;
    let port = line.port.clone();
    let waiting =
        tokio::spawn(async move { port.request(RequestId(1), level(40), PATIENCE).await });
    // The device has the command when it has acknowledged a later one; reading is answered at once.
    line.port
        .request(
            RequestId(2),
            Request::Read {
                property: "on".into(),
            },
            PATIENCE,
        )
        .await
        .unwrap();
    device.kill();
    let end = tokio::time::timeout(PATIENCE, line.end)
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(end, PortEnd::LinkClosed | PortEnd::Link(_)),
        "{end}"
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

#[tokio::test]
async fn the_device_has_the_last_word() {
    let directory = tempfile::tempdir().unwrap();
    let _device = device(directory.path(), &["--fails", "turn_on"]);
    let line = connect(directory.path(), 1).await;
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

#[test]
fn a_port_that_is_not_there_or_busy_is_said_with_its_remedy() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let missing: LinkAddress = "serial:///dev/no-such-port".parse().unwrap();
    let message = missing.open().err().unwrap().to_string();
    assert!(
        message.contains("/dev/no-such-port") && message.contains("plugged in"),
        "{message}"
    );
    let wrong: LinkAddress = "serial:///dev/null".parse().unwrap();
    let message = wrong.open().err().unwrap().to_string();
    assert!(message.contains("/dev/null"), "{message}");
}
