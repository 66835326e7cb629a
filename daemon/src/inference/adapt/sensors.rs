//! Looks at the kernel's files, below a root that tests may put elsewhere. Small files, some of which wake a sensor: for a thread of its own.
//!
//! What is not there, or says what nobody understands, is *absent* with the reason, for the status; it is never guessed, and looked for again with the
//! next look, since zones come and go with their drivers.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    pressure,
    reading::{Kind, Reading, Step},
    thermal,
};

/// Longest file that is read. The kernel's have some hundred bytes.
const BYTES_MAX: u64 = 16 << 10;

/// A limit that was passed is left at this share of it, since averages sway.
pub(super) const LEAVE: f64 = 0.7;

/// From which values on it means strain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// CPU pressure in percent from which on the box is eased, and strained.
    pub cpu_percent: [f64; 2],
    /// Memory pressure, the same.
    pub memory_percent: [f64; 2],
    /// Degrees Celsius from which on a zone without a passive or hot trip point is warm.
    pub zone_c: Option<f64>,
    /// How many times as long as at the model's best a token takes, the same.
    pub slower_times: [f64; 2],
}

/// Something that could not be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// What one look found.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sampled {
    /// What was measured.
    pub readings: Vec<Reading>,
    /// What was not.
    pub absent: Vec<Absent>,
}

/// Where to look.
#[derive(Debug, Clone)]
pub(super) struct Sensors {
    root: PathBuf,
    limits: Limits,
}

impl Sensors {
    /// `root` is `/` but in tests.
    pub(super) fn new(root: PathBuf, limits: Limits) -> Self {
        Self { root, limits }
    }

    /// One look.
    pub(super) fn sample(&self) -> Sampled {
        let mut sampled = Sampled::default();
        let pressures = [
            (Kind::Cpu, "cpu", self.limits.cpu_percent),
            (Kind::Memory, "memory", self.limits.memory_percent),
        ];
        let own = self.own_group();
        for (kind, name, limits) in pressures {
            let whole = self.root.join("proc/pressure").join(name);
            self.pressure(
                kind,
                &format!("{name} pressure"),
                &whole,
                limits,
                &mut sampled,
            );
            if let Some(dir) = &own {
                let words = format!("{name} pressure on the service");
                let file = dir.join(format!("{name}.pressure"));
                self.pressure(kind, &words, &file, limits, &mut sampled);
            }
        }
        let thermal = self.root.join("sys/class/thermal");
        thermal::sample(&thermal, self.limits.zone_c, &mut sampled);
        sampled
    }

    fn pressure(&self, kind: Kind, what: &str, file: &Path, limits: [f64; 2], into: &mut Sampled) {
        let text = match read(file) {
            Ok(text) => text,
            Err(error) => {
                let hint = match error.raw_os_error() {
                    // A kernel that has it and was not told to keep it.
                    Some(95) => " (start the kernel with psi=1)",
                    _ => "",
                };
                return into.absent(what, &format!("{}: {error}{hint}", file.display()));
            }
        };
        match pressure::parse(&text) {
            Some(value) => {
                let step = |enter: f64| Step {
                    enter,
                    leave: enter * LEAVE,
                };
                into.readings.push(Reading {
                    kind,
                    value,
                    eased: step(limits[0]),
                    strained: step(limits[1]),
                    words: format!("{what} {value:.0} % over 10 s"),
                });
            }
            None => into.absent(
                what,
                &format!("{}: not understood: {:?}", file.display(), start(&text)),
            ),
        }
    }

    /// Our own control group, if it is not the root, whose pressure is the machine's.
    fn own_group(&self) -> Option<PathBuf> {
        let groups = read(&self.root.join("proc/self/cgroup")).ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        if own.is_empty() || own.contains("..") {
            return None;
        }
        // Beside cgroup v1, the second version has a place of its own.
        ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
            .map(|mount| self.root.join(mount).join(own))
            .into_iter()
            .find(|dir| dir.join("cgroup.procs").exists())
    }
}

/// The text of a small file. A file that vanishes, or is a directory, is an error like any other.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A whole number in a file of its own, or what is wrong with it.
pub(super) fn number(path: &Path) -> Result<f64, String> {
    let text = read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let number: i32 = text
        .trim()
        .parse()
        .map_err(|_| format!("{}: not a number: {:?}", path.display(), start(&text)))?;
    Ok(f64::from(number))
}

/// The beginning of a text, for a message.
fn start(text: &str) -> String {
    text.trim().chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::reading::Level, *};

    const LIMITS: Limits = Limits {
        cpu_percent: [40.0, 75.0],
        memory_percent: [10.0, 30.0],
        zone_c: None,
        slower_times: [2.0, 4.0],
    };

    fn put(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn words(sampled: &Sampled) -> Vec<&str> {
        let readings = sampled.readings.iter();
        readings.map(|reading| reading.words.as_str()).collect()
    }

    #[test]
    fn the_machine_and_the_service_are_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let line = |percent: f64| {
            format!(
                "some avg10={percent:.2} avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
            )
        };
        put(root, "proc/pressure/cpu", &line(43.21));
        put(root, "proc/pressure/memory", &line(0.0));
        put(
            root,
            "proc/self/cgroup",
            "4:memory:/x\n0::/system.slice/autoglm-edged.service\n",
        );
        let own = "sys/fs/cgroup/system.slice/autoglm-edged.service";
        put(root, &format!("{own}/cgroup.procs"), "1\n");
        put(root, &format!("{own}/cpu.pressure"), &line(80.0));
        let sensors = Sensors::new(root.to_owned(), LIMITS);
        let sampled = sensors.sample();
        assert_eq!(
            words(&sampled),
            [
                "cpu pressure 43 % over 10 s",
                "cpu pressure on the service 80 % over 10 s",
                "memory pressure 0 % over 10 s"
            ]
        );
        let levels: Vec<Level> = sampled
            .readings
            .iter()
            .map(|it| it.level(Level::Normal))
            .collect();
        assert_eq!(levels, [Level::Eased, Level::Strained, Level::Normal]);
        let absent: Vec<&str> = sampled.absent.iter().map(|it| it.what.as_str()).collect();
        assert_eq!(
            absent,
            [
                "memory pressure on the service",
                "temperature",
                "slowed processors"
            ]
        );

        // It vanishes, it is cut off, it is something else.
        fs::remove_file(root.join("proc/pressure/cpu")).unwrap();
        put(root, "proc/pressure/memory", "some avg10=");
        put(root, &format!("{own}/cpu.pressure"), "\u{0}\u{0}");
        let sampled = sensors.sample();
        assert_eq!(words(&sampled), [""; 0]);
        assert_eq!(sampled.absent.len(), 6, "{:?}", sampled.absent);
        assert!(
            sampled.absent[2]
                .to_string()
                .contains("not understood: \"some avg10=\"")
        );
    }

    #[test]
    fn the_root_group_is_the_machine_itself_and_a_path_that_climbs_is_nobodys() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "sys/fs/cgroup/cgroup.procs", "1\n");
        for text in ["0::/\n", "0::/../../etc\n", "3:cpu:/a\n", ""] {
            put(root.path(), "proc/self/cgroup", text);
            let sensors = Sensors::new(root.path().to_owned(), LIMITS);
            assert_eq!(sensors.own_group(), None, "{text:?}");
        }
    }

    #[test]
    fn this_machine_is_read_without_a_panic() {
        let sampled = Sensors::new("/".into(), LIMITS).sample();
        println!("{:?}", words(&sampled));
        sampled
            .absent
            .iter()
            .for_each(|absent| println!("absent: {absent}"));
        assert!(!sampled.readings.is_empty() || !sampled.absent.is_empty());
    }
}
