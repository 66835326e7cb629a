//! Watches the serial ports: a thread of its own (libudev's handles may not change threads) that publishes the list anew after each
//! of udev's events.
//!
//! An event is only a reason to look: what counts is what udev has noted, so that a lost event costs a delay and nothing else. Events
//! of udev come after its rules have run; the kernel's own come before, when the node still belongs to root.
//! Without udev (in containers) the ports are looked for once a second instead; that is said once in the log.

use std::io::{PipeReader, PipeWriter, pipe};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::watch;
use udev::{MonitorBuilder, MonitorSocket};

use super::place::SerialPlace;
use super::scan;
use super::tty::{Found, Ttys};

/// Looks without a reason: with udev, in case an event was lost; without, to find out.
const LOOK_WITH_UDEV: Duration = Duration::from_secs(60);
const LOOK_WITHOUT: Duration = Duration::from_secs(1);
/// How often a path that udev does not make is looked for while it is absent: a fifth of the second within which a replugged adapter
/// is to be back, and a look costs a few microseconds.
const LOOK_FOR_PATH: Duration = Duration::from_millis(200);

type Published = Option<Arc<Ttys>>;

/// The serial ports, watched. Cheap to clone; the thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct TtyWatch {
    ttys: watch::Receiver<Published>,
    /// Closed with the last clone, which wakes the thread.
    _stop: Arc<PipeWriter>,
}

impl TtyWatch {
    /// Starts watching.
    ///
    /// # Errors
    /// When the system gives no thread or pipe.
    pub fn start() -> std::io::Result<Self> {
        let (stopped, stop) = pipe()?;
        let (publish, ttys) = watch::channel(None);
        std::thread::Builder::new()
            .name("udev".to_owned())
            .spawn(move || run(&publish, &stopped))?;
        Ok(Self {
            ttys,
            _stop: Arc::new(stop),
        })
    }

    /// The ports as they are now; waits only for the first look.
    pub async fn now(&self) -> Arc<Ttys> {
        let mut ttys = self.ttys.clone();
        match ttys.wait_for(Option::is_some).await {
            Ok(ttys) => ttys.clone().unwrap_or_default(),
            // The thread is gone: then nothing is known, and paths are tried as they stand.
            Err(_) => Arc::default(),
        }
    }
}

/// The thread.
fn run(publish: &watch::Sender<Published>, stopped: &PipeReader) {
    let mut told = None;
    loop {
        let monitor = monitor();
        let (state, wait) = match &monitor {
            Some(Ok(_)) => ("udev", LOOK_WITH_UDEV),
            Some(Err(_)) | None => ("look", LOOK_WITHOUT),
        };
        if told != Some(state) {
            match &monitor {
                Some(Ok(_)) => tracing::debug!("serial ports are watched by udev's events"),
                None => tracing::info!(
                    "no udev here: serial ports are looked for once a second, and opened as soon as they are seen"
                ),
                Some(Err(error)) => tracing::warn!(
                    %error, "udev's events cannot be heard (is AF_NETLINK allowed?): serial ports are looked for once a second"
                ),
            }
            told = Some(state);
        }
        let monitor = monitor.and_then(Result::ok);
        loop {
            look(publish, monitor.is_some());
            match wait_for(monitor.as_ref(), stopped, wait) {
                Ok(Woken::Stopped) => return,
                // Drained, for one look answers them all.
                Ok(Woken::Event) => {
                    while monitor
                        .as_ref()
                        .is_some_and(|monitor| monitor.iter().next().is_some())
                    {
                    }
                }
                Ok(Woken::Time) if monitor.is_none() => break,
                Ok(Woken::Time) => {}
                Err(error) => {
                    tracing::error!(%error, "serial ports are watched no more");
                    return;
                }
            }
        }
    }
}

/// Hears of ports once udev's rules have run for them; `None` where there is no udev.
fn monitor() -> Option<std::io::Result<MonitorSocket>> {
    let listen = || MonitorBuilder::new()?.match_subsystem("tty")?.listen();
    scan::has_udev().then(listen)
}

fn look(publish: &watch::Sender<Published>, has_events: bool) {
    let found = match scan::ttys() {
        Ok(ttys) => Ttys {
            has_udev: has_events,
            ..ttys
        },
        Err(error) => {
            tracing::debug!(%error, "serial ports cannot be listed");
            Ttys::default()
        }
    };
    publish.send_if_modified(|known| {
        let is_news = known.as_deref() != Some(&found);
        if is_news {
            *known = Some(Arc::new(found));
        }
        is_news
    });
}

enum Woken {
    Event,
    Time,
    Stopped,
}

fn wait_for(
    monitor: Option<&MonitorSocket>,
    stopped: &PipeReader,
    wait: Duration,
) -> nix::Result<Woken> {
    let mut sources = vec![PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
    sources.extend(monitor.map(|monitor| PollFd::new(monitor.as_fd(), PollFlags::POLLIN)));
    let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
    match poll(&mut sources, timeout) {
        Ok(0) | Err(Errno::EINTR) => return Ok(Woken::Time),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    // Nothing is ever written: it is woken by its closing.
    let is_stopped = sources[0].revents().is_some_and(|it| !it.is_empty());
    Ok(match is_stopped {
        true => Woken::Stopped,
        false => Woken::Event,
    })
}

/// Tells when a port may be worth opening: it was plugged in, and udev's rules have run.
#[derive(Debug)]
pub struct Arrivals {
    place: SerialPlace,
    /// `None` where nobody watches.
    watch: Option<TtyWatch>,
    /// As it was told last.
    seen: Found,
    /// Whether the path, where it is looked for by us, was absent at the last look.
    was_absent: bool,
}

impl Arrivals {
    /// What was there before is no news.
    #[must_use]
    pub fn new(place: SerialPlace, watch: Option<TtyWatch>) -> Self {
        let now = watch.as_ref().and_then(|watch| watch.ttys.borrow().clone());
        Self {
            seen: now.map_or(Found::Nothing, |ttys| ttys.find(&place)),
            place,
            watch,
            was_absent: false,
        }
    }

    /// Waits for the next arrival. Dropping the future loses none but a path beyond udev that came and went.
    pub async fn next(&mut self) {
        loop {
            let is_told = match &self.watch {
                Some(watch) => watch
                    .ttys
                    .borrow()
                    .as_ref()
                    .is_some_and(|ttys| ttys.has_udev),
                None => false,
            };
            let path = match (&self.place, is_told) {
                (SerialPlace::Path(path), false) => Some(path.as_path()),
                (place, _) => place.beyond_udev(),
            };
            tokio::select! {
                is_watched = changed(&mut self.watch) => {
                    if !is_watched {
                        self.watch = None;
                        continue;
                    }
                    let ttys = self.watch.as_ref().and_then(|watch| watch.ttys.borrow().clone());
                    let now = ttys.map_or(Found::Nothing, |ttys| ttys.find(&self.place));
                    let is_news = matches!(now, Found::Port(..)) && now != self.seen;
                    self.seen = now;
                    if is_news {
                        return;
                    }
                }
                () = appears(path, &mut self.was_absent) => return,
            }
        }
    }
}

/// Waits for another list; false if there will be none.
async fn changed(watch: &mut Option<TtyWatch>) -> bool {
    match watch {
        Some(watch) => watch.ttys.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// Waits until a path that is absent exists.
async fn appears(path: Option<&std::path::Path>, was_absent: &mut bool) {
    let Some(path) = path else {
        return std::future::pending().await;
    };
    let mut look = tokio::time::interval(LOOK_FOR_PATH);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        match path.exists() {
            true if *was_absent => {
                *was_absent = false;
                return;
            }
            is_there => *was_absent = !is_there,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any look takes on a loaded machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    async fn arrives(arrivals: &mut Arrivals) {
        tokio::time::timeout(PATIENCE, arrivals.next())
            .await
            .expect("nothing was announced");
    }

    #[tokio::test]
    async fn a_path_that_udev_does_not_make_is_announced_each_time_it_appears() {
        let path = std::env::temp_dir().join(format!("autoglm-arrival-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        for watch in [None, Some(TtyWatch::start().unwrap())] {
            let mut arrivals = Arrivals::new(SerialPlace::Path(path.clone()), watch);
            for _ in 0..2 {
                let look = tokio::time::timeout(LOOK_FOR_PATH * 2, arrivals.next());
                assert!(look.await.is_err(), "announced although it is absent");
                std::fs::write(&path, "").unwrap();
                arrives(&mut arrivals).await;
                std::fs::remove_file(&path).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_plugged_in_adapter_is_announced_once_udevs_rules_have_run_and_again_after_each_plugging()
     {
        let (publish, ttys) = watch::channel(None);
        let (_stopped, stop) = pipe().unwrap();
        let watch = TtyWatch {
            ttys,
            _stop: Arc::new(stop),
        };
        let place = SerialPlace::parse("usb/serial/A1").unwrap();
        let mut arrivals = Arrivals::new(place, Some(watch));
        let plug = |ready_us: Option<u64>| {
            let tty = super::super::tty::Tty {
                node: "/dev/ttyUSB0".into(),
                names: Vec::new(),
                driver: None,
                usb: Some(super::super::tty::UsbTty {
                    id: super::super::place::UsbId {
                        vendor: 1,
                        product: 2,
                    },
                    serial: Some("A1".to_owned()),
                    product: None,
                    interface: None,
                    port: None,
                }),
                is_fitted: true,
                ready_us,
            };
            let found = Ttys {
                ttys: vec![tty],
                has_udev: true,
            };
            publish.send_replace(Some(Arc::new(found)));
        };
        plug(None);
        let early = tokio::time::timeout(LOOK_FOR_PATH * 2, arrivals.next());
        assert!(
            early.await.is_err(),
            "announced before udev's rules had run"
        );
        plug(Some(7));
        arrives(&mut arrivals).await;
        // The same list again is no news, another plugging under the same node is.
        plug(Some(7));
        let again = tokio::time::timeout(LOOK_FOR_PATH * 2, arrivals.next());
        assert!(again.await.is_err(), "announced twice");
        plug(Some(9));
        arrives(&mut arrivals).await;
    }

    #[tokio::test]
    async fn the_thread_lists_what_there_is_and_ends_with_its_last_handle() {
        let watch = TtyWatch::start().unwrap();
        let seen = watch.now().await;
        assert_eq!(seen.ttys, scan::ttys().unwrap().ttys);
        let mut ttys = watch.ttys.clone();
        drop(watch);
        let ended = async { while ttys.changed().await.is_ok() {} };
        tokio::time::timeout(PATIENCE, ended)
            .await
            .expect("the thread goes on");
    }
}
