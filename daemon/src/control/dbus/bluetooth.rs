//! `org.openautoglm.Edge1.Bluetooth`: who is heard, pairing and forgetting, at the root of our tree.
//!
//! A pairing may ask its person something (digits that the device shows, or whether two numbers are the same). So `Pair` answers
//! with a socket: JSON lines down tell and ask, lines up answer, and the one that closes it has given up.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use autoglm_drivers::ble::address::{AdapterSelector, parse_adapter};
use autoglm_drivers::ble::{BleError, Credential, DeviceAddress, Question};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::mpsc;
use zbus::message::Header;
use zbus::{Connection, OwnedVariant, interface};

use super::access::{Access, Verb};
use super::error::Error;
use super::manager::{known_options, owned};
use crate::bluetooth::{Bluetooth, Heard};

/// Shortest, usual and longest look around, in milliseconds. Most devices advertise every second, sensors up to every ten.
const LOOK_MS: (u32, u32, u32) = (500, 8_000, 60_000);
/// Questions of one pairing that wait; there are one or two in all.
const QUESTIONS: usize = 4;
/// The longest line that an answer may be, in bytes: a PIN has 16.
const LINE_BYTES_MAX: u64 = 256;

type Dictionary = HashMap<String, OwnedVariant>;

/// The Bluetooth object.
#[derive(Debug)]
pub struct BluetoothObject {
    /// Judges callers.
    pub access: Access,
    /// Does it.
    pub bluetooth: Bluetooth,
}

#[interface(name = "org.openautoglm.Edge1.Bluetooth")]
impl BluetoothObject {
    /// Listens for a while and returns who was heard: `address`, `adapter`, and where they are known `name`, `rssi-dbm`, `services`,
    /// `manufacturers`. Options: `adapter` (s, a name or an address; any when left out), `duration-ms` (u, 500 to 60000; 8000).
    async fn scan(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<Vec<Dictionary>, Error> {
        known_options(&options, &["adapter", "duration-ms"])?;
        let (least, usual, most) = LOOK_MS;
        let millis =
            option(&options, "duration-ms", "an unsigned 32-bit integer")?.unwrap_or(usual);
        if !(least..=most).contains(&millis) {
            return Err(Error::InvalidArgument(format!(
                "option duration-ms must be from {least} to {most}, not {millis}"
            )));
        }
        let adapter = adapter(&options)?;
        self.access
            .authorise(connection, &header, Verb::Observe)
            .await?;
        let time = Duration::from_millis(u64::from(millis));
        let found = self.bluetooth.look_around(&adapter, time).await?;
        Ok(found
            .iter()
            .map(|(device, heard)| owned(describe(*device, heard)))
            .collect())
    }

    /// Pairs with a device that advertises. Returns a socket with one JSON object a line: `{"event": "asked", "what": "passkey" | "pin"}` wants
    /// `{"answer": "123456"}`; `"what": "match"` shows `digits`, and wants `{"answer": true}` if the device shows the same; `{"event":
    /// "show", "digits": …}` are to be typed on the device. The last is `{"event": "done", "checked": …}` (whether anything was compared) or
    /// `{"event": "failed", "name": …, "message": …}`. Closing the socket is a "no".
    ///
    /// Options: `adapter` (s); what is known beforehand: `passkey` (u, 0 to 999999) or `pin` (s); `ask` (b: a person is there; otherwise only
    /// devices are paired that compare nothing).
    async fn pair(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        device: &str,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<zbus::OwnedFd, Error> {
        known_options(&options, &["adapter", "passkey", "pin", "ask"])?;
        let (device, adapter) = (address(device)?, adapter(&options)?);
        let given = credential(&options)?;
        self.access
            .authorise(connection, &header, Verb::Pair)
            .await?;
        let no_socket = |error: std::io::Error| Error::Failed(format!("no socket: {error}"));
        let (ours, theirs) = UnixStream::pair().map_err(no_socket)?;
        let theirs = theirs.into_std().map_err(no_socket)?;
        theirs.set_nonblocking(false).map_err(no_socket)?;
        // It ends with the pairing, which has its own limit.
        tokio::spawn(pair(self.bluetooth.clone(), adapter, device, given, ours));
        Ok(zbus::OwnedFd::from(OwnedFd::from(theirs)))
    }

    /// Forgets a device: its bond, its cached services, and where the counter of a sensor stood. One that is not known is forgotten.
    /// Options: `adapter` (s).
    async fn forget(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        device: &str,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<(), Error> {
        known_options(&options, &["adapter"])?;
        let (device, adapter) = (address(device)?, adapter(&options)?);
        self.access
            .authorise(connection, &header, Verb::Pair)
            .await?;
        Ok(self.bluetooth.forget(&adapter, device).await?)
    }
}

/// What is known of the device before it is paired.
enum Given {
    Credential(Credential),
    Person,
}

fn credential(options: &HashMap<String, OwnedVariant>) -> Result<Given, Error> {
    let passkey: Option<u32> = option(options, "passkey", "an unsigned 32-bit integer")?;
    let pin: Option<String> = option(options, "pin", "a string")?;
    let is_asking: bool = option(options, "ask", "a boolean")?.unwrap_or(false);
    match (passkey, pin, is_asking) {
        (Some(passkey), None, false) if passkey <= 999_999 => {
            Ok(Given::Credential(Credential::Passkey(passkey)))
        }
        (Some(_), None, false) => Err(Error::InvalidArgument(
            "option passkey must be from 0 to 999999".to_owned(),
        )),
        (None, Some(pin), false) if (1..=16).contains(&pin.len()) => {
            Ok(Given::Credential(Credential::Pin(pin)))
        }
        (None, Some(_), false) => Err(Error::InvalidArgument(
            "option pin must have 1 to 16 bytes".to_owned(),
        )),
        (None, None, true) => Ok(Given::Person),
        (None, None, false) => Ok(Given::Credential(Credential::None)),
        _ => Err(Error::InvalidArgument(
            "only one of the options passkey, pin and ask".to_owned(),
        )),
    }
}

/// One pairing, from its beginning to the last line.
async fn pair(
    bluetooth: Bluetooth,
    adapter: AdapterSelector,
    device: DeviceAddress,
    given: Given,
    socket: UnixStream,
) {
    let (reader, mut writer) = socket.into_split();
    let mut answers = BufReader::new(reader.take(0));
    let (person, mut questions) = mpsc::channel(QUESTIONS);
    let (credential, mut is_checked) = match given {
        Given::Person => (Credential::Ask(person), false),
        Given::Credential(credential) => {
            let is_given = !matches!(credential, Credential::None);
            (credential, is_given)
        }
    };
    let mut pairing = std::pin::pin!(bluetooth.pair(&adapter, device, credential));
    let result = loop {
        tokio::select! {
            result = &mut pairing => break result,
            Some(question) = questions.recv() => {
                is_checked = true;
                // Beside the question its pairing goes on, and may end first: by BlueZ's own limit, or the device's "no".
                tokio::select! {
                    result = &mut pairing => break result,
                    () = put(question, &mut writer, &mut answers) => {}
                }
            }
        }
    };
    let last = match result {
        Ok(()) => json!({"event": "done", "address": device.to_string(), "checked": is_checked}),
        Err(error) => {
            let error = Error::from(error);
            let name = zbus::DBusError::name(&error);
            let name = name.rsplit_once('.').map_or("Failed", |(_, name)| name);
            let message = zbus::DBusError::description(&error).unwrap_or_default();
            json!({"event": "failed", "name": name, "message": message})
        }
    };
    // Whoever asked may be gone.
    let _ = writer.write_all(format!("{last}\n").as_bytes()).await;
}

/// Puts a question to the person and takes the answer; a "no" drops the question.
async fn put(
    question: Question,
    writer: &mut tokio::net::unix::OwnedWriteHalf,
    answers: &mut BufReader<tokio::io::Take<OwnedReadHalf>>,
) {
    let line = match &question {
        Question::Passkey(_) => json!({"event": "asked", "what": "passkey"}),
        Question::Pin(_) => json!({"event": "asked", "what": "pin"}),
        Question::Matches(digits, _) => {
            json!({"event": "asked", "what": "match", "digits": format!("{digits:06}")})
        }
        Question::Show(digits) => json!({"event": "show", "digits": digits}),
    };
    if writer
        .write_all(format!("{line}\n").as_bytes())
        .await
        .is_err()
    {
        return;
    }
    if matches!(question, Question::Show(_)) {
        return;
    }
    answers.get_mut().set_limit(LINE_BYTES_MAX);
    let mut line = String::new();
    let answer = match answers.read_line(&mut line).await {
        Ok(_) => serde_json::from_str::<Json>(&line).unwrap_or_default()["answer"].take(),
        Err(_) => Json::Null,
    };
    // What does not fit is a "no". A reply that nobody takes any more is one that came too late.
    match (question, answer) {
        (Question::Passkey(reply), Json::String(digits)) => {
            if let Some(passkey) = digits.parse().ok().filter(|passkey| *passkey <= 999_999) {
                let _ = reply.send(passkey);
            }
        }
        (Question::Pin(reply), Json::String(pin)) if (1..=16).contains(&pin.len()) => {
            let _ = reply.send(pin);
        }
        (Question::Matches(_, reply), Json::Bool(true)) => {
            let _ = reply.send(());
        }
        _ => {}
    }
}

fn address(text: &str) -> Result<DeviceAddress, Error> {
    text.parse().map_err(|_| {
        Error::InvalidArgument(format!(
            "{text:?} is no Bluetooth address (A4:C1:38:8D:18:B2)"
        ))
    })
}

fn adapter(options: &HashMap<String, OwnedVariant>) -> Result<AdapterSelector, Error> {
    let text: Option<String> = option(options, "adapter", "a string")?;
    parse_adapter(&text.unwrap_or_default())
        .map_err(|error| Error::InvalidArgument(error.to_string()))
}

fn option<T: TryFrom<OwnedVariant>>(
    options: &HashMap<String, OwnedVariant>,
    name: &str,
    expected: &str,
) -> Result<Option<T>, Error> {
    let Some(value) = options.get(name) else {
        return Ok(None);
    };
    T::try_from(value.clone())
        .map(Some)
        .map_err(|_| Error::InvalidArgument(format!("option {name} must be {expected}")))
}

fn describe(device: DeviceAddress, heard: &Heard) -> Json {
    let services: Vec<_> = heard.services.iter().map(ToString::to_string).collect();
    let mut described = json!({
        "address": device.to_string(),
        "adapter": heard.adapter,
        "services": services,
        "manufacturers": heard.manufacturers,
    });
    if let Some(name) = &heard.name {
        described["name"] = json!(name);
    }
    if let Some(rssi) = heard.rssi_dbm {
        described["rssi-dbm"] = json!(rssi);
    }
    described
}

impl From<BleError> for Error {
    fn from(error: BleError) -> Self {
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            message = format!("{message}: {source}");
        }
        match error {
            BleError::NoService
            | BleError::NoAdapter(_)
            | BleError::AdapterOff { .. }
            | BleError::NotOpened { .. }
            | BleError::ScanFailed { .. }
            | BleError::Stopped => Self::BluetoothUnavailable(message),
            BleError::NotHeard { .. }
            | BleError::NotConnected { .. }
            | BleError::LostMeanwhile { .. } => Self::NotConnected(message),
            BleError::TimedOut { .. } => Self::NoAnswer(message),
            BleError::Busy { .. } | BleError::QueueFull { .. } => Self::Busy(message),
            BleError::ServiceMissing { .. }
            | BleError::Authentication { .. }
            | BleError::PairingWants { .. }
            | BleError::PairingRefused { .. }
            | BleError::Failed { .. } => Self::DeviceFault(message),
        }
    }
}
