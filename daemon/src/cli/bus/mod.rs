//! The daemon as the command line sees it: one connection to a bus, calls, and snapshots of the objects behind it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value as Json};
use zbus::fdo::ObjectManagerProxy;
use zbus::names::OwnedInterfaceName;
use zbus::proxy::{CacheProperties, Defaults};
use zbus::{OwnedFd, Variant};

pub use self::bluetooth::Pairing;
pub use self::decode::ThingObject;
use self::decode::{by_name, object, objects, snake_case, thing};
pub use self::models::Speaking;
use super::exit::Exit;
use super::failure::Failure;
use crate::control::dbus::client::{
    BluetoothProxy, LinkProxy, ManagerProxy, ModelProxy, ModelsProxy, ThingProxy,
};
use crate::control::dbus::{names, value};

mod bluetooth;
mod decode;
mod models;

/// Longest wait for a reply unless told otherwise. Chosen because polkit may ask the person for a password meanwhile, and
/// because devices have deadlines of their own, which are shorter.
const REPLY: Duration = Duration::from_secs(120);
/// How much longer than a device's deadline the daemon may take, so that the daemon's own answer ("no answer") arrives.
const REPLY_MARGIN: Duration = Duration::from_secs(5);

/// A bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bus {
    /// The system bus.
    System,
    /// The bus of the login session.
    Session,
    /// A D-Bus address.
    Address(String),
}

impl FromStr for Bus {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "system" => Self::System,
            "session" => Self::Session,
            address => Self::Address(address.to_owned()),
        })
    }
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("the system bus"),
            Self::Session => f.write_str("the session bus"),
            Self::Address(address) => write!(f, "the bus at {address}"),
        }
    }
}

/// What a thing is asked to do.
#[derive(Debug, Clone)]
pub enum Request<'a> {
    /// Invoke an action.
    Invoke(&'a str, Option<Json>),
    /// Read a property.
    Read(&'a str),
    /// Write a property.
    Write(&'a str, Json),
}

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    bus: Bus,
    timeout: Option<Duration>,
    manager: ManagerProxy<'static>,
    models: ModelsProxy<'static>,
    bluetooth: BluetoothProxy<'static>,
    objects: ObjectManagerProxy<'static>,
}

impl Daemon {
    /// Connects to the bus; whether the daemon is there shows at the first call.
    ///
    /// # Errors
    /// [`Exit::Unreachable`], or [`Exit::Usage`] for an address that is none.
    pub async fn connect(bus: Bus, timeout: Option<Duration>) -> Result<Self, Failure> {
        let builder = match &bus {
            Bus::System => zbus::connection::Builder::system(),
            Bus::Session => zbus::connection::Builder::session(),
            Bus::Address(address) => zbus::connection::Builder::address(address.as_str()),
        };
        let reply = timeout.map_or(REPLY, |timeout| timeout.saturating_add(REPLY_MARGIN));
        let connection = builder.method_timeout(reply).build().await;
        let connection = connection.map_err(|error| unconnected(&bus, &error))?;
        let failure = |error| Failure::call(&bus, &error);
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(failure)?;
        let models = ModelsProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(failure)?;
        let bluetooth = BluetoothProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(failure)?;
        let objects = ObjectManagerProxy::builder(&connection)
            .destination(names::SERVICE)
            .path(names::ROOT)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(failure)?;
        Ok(Self {
            bus,
            timeout,
            manager,
            models,
            bluetooth,
            objects,
        })
    }

    /// Has a thing do something: `output` (where there is one) and `timings_us`. `id` makes it happen at most once.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn request(
        &self,
        thing: &str,
        request: Request<'_>,
        id: Option<&str>,
    ) -> Result<Map<String, Json>, Failure> {
        let mut options: HashMap<&str, Variant<'_>> = HashMap::new();
        if let Some(timeout) = self.timeout {
            let millis = u32::try_from(timeout.as_millis())
                .unwrap_or(u32::MAX)
                .max(1);
            options.insert("deadline-ms", Variant::from(millis));
        }
        if let Some(id) = id {
            options.insert("id", Variant::from(id));
        }
        let reply = match request {
            Request::Invoke(action, input) => {
                if let Some(input) = input {
                    options.insert("input", value::from_json(&input));
                }
                self.manager.invoke(thing, action, options).await
            }
            Request::Read(property) => self.manager.read(thing, property, options).await,
            Request::Write(property, new) => {
                self.manager
                    .write(thing, property, &value::from_json(&new), options)
                    .await
            }
        };
        object(&reply.map_err(|error| self.failure(&error))?)
    }

    /// Says something; the answer comes on the pipe.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn say(&self, session: &str, text: &str, class: &str) -> Result<OwnedFd, Failure> {
        let options = HashMap::from([("class", Variant::from(class))]);
        self.manager
            .say(session, text, options)
            .await
            .map_err(|error| self.failure(&error))
    }

    /// How everything stands.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn status(&self) -> Result<Map<String, Json>, Failure> {
        object(
            &self
                .manager
                .status()
                .await
                .map_err(|error| self.failure(&error))?,
        )
    }

    /// All conversations.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn sessions(&self) -> Result<Vec<Map<String, Json>>, Failure> {
        objects(
            &self
                .manager
                .list_sessions()
                .await
                .map_err(|error| self.failure(&error))?,
        )
    }

    /// The last turns of a conversation.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn turns(
        &self,
        session: &str,
        count: u32,
    ) -> Result<Vec<Map<String, Json>>, Failure> {
        let turns = self.manager.session_turns(session, count).await;
        objects(&turns.map_err(|error| self.failure(&error))?)
    }

    /// Deletes a conversation; false when there was none.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn delete_session(&self, session: &str) -> Result<bool, Failure> {
        self.manager
            .delete_session(session)
            .await
            .map_err(|error| self.failure(&error))
    }

    /// All things, by title.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn things(&self) -> Result<Vec<ThingObject>, Failure> {
        let objects = self.properties(interface::<ThingProxy<'_>>()).await?;
        let mut things: Vec<ThingObject> = objects.into_iter().map(thing).collect();
        things
            .sort_by(|a, b| (a.title.to_lowercase(), &a.id).cmp(&(b.title.to_lowercase(), &b.id)));
        Ok(things)
    }

    /// All links: `name`, `device`, `address`, `state`, `detail`, `security`, `rtt_us`, `loss`, `bytes_sent`, `bytes_received`; by name.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn links(&self) -> Result<Vec<Map<String, Json>>, Failure> {
        self.properties(interface::<LinkProxy<'_>>())
            .await
            .map(by_name)
    }

    /// All models: `name`, `task`, `state`, `detail`, `provider`, `device`, `nodes_placed`, `nodes_left`, `time_ratio`, `refused`; by name.
    ///
    /// # Errors
    /// What the daemon said.
    pub async fn models(&self) -> Result<Vec<Map<String, Json>>, Failure> {
        self.properties(interface::<ModelProxy<'_>>())
            .await
            .map(by_name)
    }

    /// The properties of every object with `interface`, their names in snake case as everywhere in our JSON.
    async fn properties(&self, interface: &str) -> Result<Vec<Map<String, Json>>, Failure> {
        let interface = OwnedInterfaceName::try_from(interface)
            .expect("zbus checked it in the proxy's definition");
        let objects = self.objects.get_managed_objects().await;
        let objects = objects.map_err(|error| self.failure(&zbus::Error::FDO(Box::new(error))))?;
        objects
            .into_values()
            .filter_map(|mut interfaces| interfaces.remove(&interface))
            .map(|properties| {
                let properties = object(&properties)?;
                Ok(properties
                    .into_iter()
                    .map(|(name, value)| (snake_case(&name), value))
                    .collect())
            })
            .collect()
    }

    fn failure(&self, error: &zbus::Error) -> Failure {
        Failure::call(&self.bus, error)
    }
}

fn interface<P: Defaults>() -> &'static str {
    P::INTERFACE.as_ref().map_or("", |name| name.as_str())
}

fn unconnected(bus: &Bus, error: &zbus::Error) -> Failure {
    let unreachable = Failure::new(Exit::Unreachable, format!("cannot reach {bus}")).because(error);
    match (bus, error) {
        (Bus::Address(address), zbus::Error::Address(_)) => {
            Failure::new(Exit::Usage, format!("{address:?} is no D-Bus address"))
                .because(error)
                .hint("--bus takes system, session or an address such as unix:path=/run/dbus/system_bus_socket")
        }
        (Bus::Session, _) => unreachable.hint("is DBUS_SESSION_BUS_ADDRESS set?"),
        (Bus::System, _) => unreachable.hint("is dbus.service running?"),
        (Bus::Address(_), _) => unreachable,
    }
}
