//! Who may call what, over D-Bus.
//!
//! The kernel says who calls (peer credentials, through the bus). Root and the daemon's own user may do everything; on the system
//! bus everybody else is judged by polkit, one action per verb; on a session bus nobody else is let in. The bus policy stays open
//! for callers, because it refuses before polkit is asked; without polkit the answer is AccessDenied, never a guess.

use std::collections::HashMap;

use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::Header;
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

use super::error::Error;
use crate::config::Bus;
use crate::router::Principal;

/// What a caller wants to do, as polkit actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Look at things, links, models, status.
    Observe,
    /// Make devices do something.
    Control,
    /// Talk, and read or delete conversations.
    Converse,
    /// Pair and forget Bluetooth devices.
    Pair,
}

impl Verb {
    /// The polkit action.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::Observe => "org.openautoglm.edge1.observe",
            Self::Control => "org.openautoglm.edge1.control",
            Self::Converse => "org.openautoglm.edge1.converse",
            Self::Pair => "org.openautoglm.edge1.pair",
        }
    }
}

/// Judges callers.
#[derive(Debug, Clone)]
pub struct Access {
    bus: Bus,
    own_uid: u32,
}

impl Access {
    /// For a bus; `own_uid` is the daemon's user.
    #[must_use]
    pub fn new(bus: Bus, own_uid: u32) -> Self {
        Self { bus, own_uid }
    }

    /// The caller, if it may do this.
    ///
    /// # Errors
    /// [`Error::AccessDenied`] naming user and action.
    pub async fn authorise(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        verb: Verb,
    ) -> Result<Principal, Error> {
        let sender = header
            .sender()
            .ok_or_else(|| Error::AccessDenied("the caller has no name on the bus".to_owned()))?;
        let credentials = DBusProxy::new(connection)
            .await?
            .get_connection_credentials(sender.clone().into())
            .await;
        let uid = credentials
            .ok()
            .and_then(|credentials| credentials.unix_user_id())
            .ok_or_else(|| {
                Error::AccessDenied("the caller's user is not known to the bus".to_owned())
            })?;
        let denied = |why: &str| {
            Err(Error::AccessDenied(format!(
                "user {uid} may not {} ({why})",
                verb.action()
            )))
        };
        if uid == 0 || uid == self.own_uid {
            return Ok(Principal::Local { uid });
        }
        if self.bus != Bus::System {
            return denied("on a session bus only the daemon's own user may");
        }
        let subject = match Subject::new_for_message_header(header) {
            Ok(subject) => subject,
            Err(_) => return denied("polkit cannot tell who asks"),
        };
        let authority = AuthorityProxy::new(connection).await?;
        let flags = CheckAuthorizationFlags::ALLOW_USER_INTERACTION;
        match authority
            .check_authorization(&subject, verb.action(), &HashMap::new(), flags, "")
            .await
        {
            Ok(result) if result.is_authorized => Ok(Principal::Local { uid }),
            Ok(_) => denied("polkit refused"),
            Err(error) => {
                tracing::warn!(%error, "polkit could not be asked");
                denied("polkit could not be asked; is it installed?")
            }
        }
    }
}
