//! The client side of `org.openautoglm.Edge1`, written down once for the command line, for tests and for other programs.
//!
//! Nothing here decides anything: these are the interfaces of [`super::manager`] and of the objects beside it, as proxies.
//! Values come as D-Bus variants; [`super::value`] turns them into JSON.

use std::collections::{BTreeMap, HashMap};

use zbus::{OwnedFd, OwnedVariant, Variant};

/// What stands before the name of every error of ours ([`super::error::Error`]).
pub const ERROR_PREFIX: &str = "org.openautoglm.Edge1.Error.";

/// A dictionary that a method returns, or an object's properties.
pub type Dictionary = HashMap<String, OwnedVariant>;
/// Element type, extents and content of a tensor: its elements in row-major order, little-endian.
pub type Tensor = (String, Vec<u64>, Vec<u8>);

/// `org.openautoglm.Edge1.Manager`: commands, conversations and the state of the box.
#[zbus::proxy(
    interface = "org.openautoglm.Edge1.Manager",
    default_service = "org.openautoglm.Edge1",
    default_path = "/org/openautoglm/Edge1"
)]
pub trait Manager {
    /// Carries out an action: `output` (where it has one) and `timings_us`. Options: `input` (v), `id` (s), `deadline-ms` (u).
    fn invoke(
        &self,
        thing: &str,
        action: &str,
        options: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<Dictionary>;

    /// Writes a property. Options: `id` (s), `deadline-ms` (u).
    fn write(
        &self,
        thing: &str,
        property: &str,
        value: &Variant<'_>,
        options: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<Dictionary>;

    /// Asks the device for a property's value. Options: `deadline-ms` (u).
    fn read(
        &self,
        thing: &str,
        property: &str,
        options: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<Dictionary>;

    /// Says something; the answer comes on the pipe, one JSON object a line, the last with `event` `done` or `failed`. Options: `class` (s),
    /// `deadline-ms` (u).
    fn say(
        &self,
        session: &str,
        text: &str,
        options: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<OwnedFd>;

    /// How everything stands.
    fn status(&self) -> zbus::Result<Dictionary>;

    /// All conversations, the one that was active last first.
    fn list_sessions(&self) -> zbus::Result<Vec<Dictionary>>;

    /// The last `count` turns of a conversation, oldest first.
    fn session_turns(&self, session: &str, count: u32) -> zbus::Result<Vec<Dictionary>>;

    /// Deletes a conversation; false when there was none.
    fn delete_session(&self, session: &str) -> zbus::Result<bool>;

    /// How hard the box has it: `normal`, `eased` or `strained`.
    #[zbus(property)]
    fn strain(&self) -> zbus::Result<String>;

    /// Why.
    #[zbus(property)]
    fn strain_reason(&self) -> zbus::Result<String>;

    /// The daemon's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;

    /// The box's name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn box_id(&self) -> zbus::Result<String>;
}

/// `org.openautoglm.Edge1.Models`: bundles and models.
#[zbus::proxy(
    interface = "org.openautoglm.Edge1.Models",
    default_service = "org.openautoglm.Edge1",
    default_path = "/org/openautoglm/Edge1"
)]
pub trait Models {
    /// Tries again all providers that the configuration wants for a model; takes as long as that.
    fn probe(&self, model: &str) -> zbus::Result<Dictionary>;

    /// Loads a model anew, or all with an empty name; takes as long as that.
    fn reload(&self, model: &str) -> zbus::Result<Vec<String>>;

    /// All bundles in the configured directories.
    fn list_bundles(&self) -> zbus::Result<Vec<Dictionary>>;

    /// Compares a bundle's digests, loads it and runs its probe, in a process of its own.
    fn verify(&self, model: &str) -> zbus::Result<Dictionary>;

    /// The same, and measures it.
    fn benchmark(&self, model: &str) -> zbus::Result<Dictionary>;

    /// Writes down what is said in a sound; segments come on the pipe, one JSON object a line, the last with `event` `done` or `failed`. Options: `format`
    /// (s), `language` (s), `class` (s), `deadline-ms` (u).
    fn transcribe(
        &self,
        sound: OwnedFd,
        options: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<OwnedFd>;

    /// Speaks a text; lines of JSON with the sound between them come on the pipe, the last with `event` `done` or `failed`. Options: `class` (s),
    /// `deadline-ms` (u), `speaker` (u), `speed` (d).
    fn speak(&self, text: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedFd>;

    /// Runs a model of plain tensors once. Options: `class` (s).
    fn run(
        &self,
        model: &str,
        inputs: &BTreeMap<String, Tensor>,
        options: HashMap<&str, Variant<'_>>,
    ) -> zbus::Result<BTreeMap<String, Tensor>>;
}

/// `org.openautoglm.Edge1.Bluetooth`: who is heard, pairing, forgetting.
#[zbus::proxy(
    interface = "org.openautoglm.Edge1.Bluetooth",
    default_service = "org.openautoglm.Edge1",
    default_path = "/org/openautoglm/Edge1"
)]
pub trait Bluetooth {
    /// Listens and returns who was heard. Options: `adapter` (s), `duration-ms` (u).
    fn scan(&self, options: HashMap<&str, Variant<'_>>) -> zbus::Result<Vec<Dictionary>>;

    /// Pairs; the socket tells and asks by JSON lines. Options: `adapter` (s), `passkey` (u), `pin` (s), `ask` (b).
    fn pair(&self, device: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<OwnedFd>;

    /// Forgets a device. Options: `adapter` (s).
    fn forget(&self, device: &str, options: HashMap<&str, Variant<'_>>) -> zbus::Result<()>;
}

/// `org.openautoglm.Edge1.Thing`: a device, at `/org/openautoglm/Edge1/things/*`.
#[zbus::proxy(
    interface = "org.openautoglm.Edge1.Thing",
    default_service = "org.openautoglm.Edge1"
)]
pub trait Thing {
    /// Its identifier.
    #[zbus(property)]
    fn id(&self) -> zbus::Result<String>;
    /// What people call it.
    #[zbus(property)]
    fn title(&self) -> zbus::Result<String>;
    /// Whether it is connected.
    #[zbus(property)]
    fn online(&self) -> zbus::Result<bool>;
    /// The link that it is on; empty while it is offline.
    #[zbus(property)]
    fn link(&self) -> zbus::Result<String>;
    /// Its Thing Description, as JSON.
    #[zbus(property)]
    fn description(&self) -> zbus::Result<String>;
    /// The values that it last reported, by property.
    #[zbus(property)]
    fn values(&self) -> zbus::Result<Dictionary>;
}

/// `org.openautoglm.Edge1.Link`: a way to devices, at `/org/openautoglm/Edge1/links/*`.
#[zbus::proxy(
    interface = "org.openautoglm.Edge1.Link",
    default_service = "org.openautoglm.Edge1"
)]
pub trait Link {
    /// Its name in the configuration.
    #[zbus(property)]
    fn name(&self) -> zbus::Result<String>;
    /// Where it leads.
    #[zbus(property)]
    fn address(&self) -> zbus::Result<String>;
    /// Name of its device in the configuration.
    #[zbus(property)]
    fn device(&self) -> zbus::Result<String>;
    /// `connected`: it carries the device. `standby`, `connecting`, `reconnecting`, `disconnected` or `refused` otherwise.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
    /// Why it is not connected, if something went wrong.
    #[zbus(property)]
    fn detail(&self) -> zbus::Result<String>;
    /// `private` or `clear`.
    #[zbus(property)]
    fn security(&self) -> zbus::Result<String>;
    /// Smoothed round-trip time in microseconds; 0 while it is not known.
    #[zbus(property)]
    fn rtt_us(&self) -> zbus::Result<u64>;
    /// Share of packets that had to be sent again; -1 while it is not known.
    #[zbus(property)]
    fn loss(&self) -> zbus::Result<f64>;
    /// Bytes handed to the link since the daemon started.
    #[zbus(property)]
    fn bytes_sent(&self) -> zbus::Result<u64>;
    /// Bytes taken from it.
    #[zbus(property)]
    fn bytes_received(&self) -> zbus::Result<u64>;
}

/// `org.openautoglm.Edge1.Model`: a model, at `/org/openautoglm/Edge1/models/*`.
#[zbus::proxy(
    interface = "org.openautoglm.Edge1.Model",
    default_service = "org.openautoglm.Edge1"
)]
pub trait Model {
    /// Its name in the configuration.
    #[zbus(property)]
    fn name(&self) -> zbus::Result<String>;
    /// What it is for.
    #[zbus(property)]
    fn task(&self) -> zbus::Result<String>;
    /// `missing`, `loading`, `ready`, `disabled` or `stopped`.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
    /// The state in words, with its reason.
    #[zbus(property)]
    fn detail(&self) -> zbus::Result<String>;
    /// The execution provider that runs it.
    #[zbus(property)]
    fn provider(&self) -> zbus::Result<String>;
    /// The kind of device that runs it.
    #[zbus(property)]
    fn device(&self) -> zbus::Result<String>;
    /// Nodes of the graph on the provider.
    #[zbus(property)]
    fn nodes_placed(&self) -> zbus::Result<u32>;
    /// Nodes of the graph on the CPU beside it.
    #[zbus(property)]
    fn nodes_left(&self) -> zbus::Result<u32>;
    /// Time as a multiple of the CPU's.
    #[zbus(property)]
    fn time_ratio(&self) -> zbus::Result<f64>;
    /// Who was wanted before it: provider, device, verdict, words.
    #[zbus(property)]
    fn refused(&self) -> zbus::Result<Vec<(String, String, String, String)>>;
}
