//! Heat, as Linux's thermal framework tells it (docs.kernel.org/driver-api/thermal/sysfs-api.html): zones with their trip points, and processors that the kernel
//! slows.
//!
//! A zone counts if it has a limit: the temperature from which on the kernel itself slows things (`passive`), or one that is too much (`hot`). Of a zone with
//! neither, nothing is guessed: `[inference.adapt] temperature_c` gives it one. The kernel writes thousandths of a degree Celsius.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    reading::{Kind, Reading, Step},
    sensors::{Absent, Sampled, number, read},
};

/// So far below a limit it is left again. Chosen because sensors jump by a degree or two between looks.
const HYSTERESIS_C: f64 = 5.0;

/// Where the kernel has only one limit: so far above it, it is more than warm.
const ABOVE_C: f64 = 10.0;

/// Zones and devices that are looked at; boards have some twenty.
const ENTRIES_MAX: usize = 64;

/// Trip points of a zone; the kernel has at most so many.
const TRIPS_MAX: usize = 32;

/// Cooling devices that slow a processor, by how their `type` begins.
const PROCESSORS: [&str; 3] = ["cpufreq", "thermal-cpufreq", "Processor"];

/// What a zone's trip points say, in degrees Celsius, the lowest first.
#[derive(Debug, Default, Clone, PartialEq)]
struct Trips {
    passive: Vec<f64>,
    hot: Vec<f64>,
    critical: Vec<f64>,
}

/// Looks at all zones and cooling devices below `thermal` (`/sys/class/thermal`).
pub(super) fn sample(thermal: &Path, limit_c: Option<f64>, into: &mut Sampled) {
    match entries(thermal) {
        Ok(entries) => {
            let (mut zones, mut processors) = (0, 0);
            for dir in entries {
                let name = dir.file_name().and_then(|name| name.to_str());
                let name = name.unwrap_or_default();
                if name.starts_with("thermal_zone") {
                    zones += 1;
                    zone(&dir, limit_c, into);
                } else if name.starts_with("cooling_device") && is_processor(&dir) {
                    processors += 1;
                    slowed(&dir, into);
                }
            }
            if zones == 0 {
                into.absent("temperature", "the kernel has no thermal zones");
            }
            if processors == 0 {
                into.absent(
                    "slowed processors",
                    "the kernel slows no processor for heat",
                );
            }
        }
        Err(error) => {
            let why = format!("{}: {error}", thermal.display());
            into.absent("temperature", &why);
            into.absent("slowed processors", &why);
        }
    }
}

fn entries(thermal: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries: Vec<PathBuf> = fs::read_dir(thermal)?
        .flatten()
        .take(ENTRIES_MAX)
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    Ok(entries)
}

fn kind_of(dir: &Path) -> String {
    let kind = read(&dir.join("type")).unwrap_or_default();
    let kind = kind.trim();
    match kind.is_empty() {
        true => dir.file_name().unwrap_or_default().to_string_lossy().into(),
        false => kind.to_owned(),
    }
}

fn is_processor(dir: &Path) -> bool {
    let kind = kind_of(dir);
    PROCESSORS.iter().any(|begin| kind.starts_with(begin))
}

fn zone(dir: &Path, limit_c: Option<f64>, into: &mut Sampled) {
    let name = format!("zone {}", kind_of(dir));
    let trips = trips(dir);
    let Some((limit, eased, strained)) = limits(&trips, limit_c) else {
        into.absent(
            &name,
            "it has no passive or hot trip point, and inference.adapt.temperature_c is not set",
        );
        return;
    };
    let value = match number(&dir.join("temp")) {
        Ok(millis) => millis / 1000.0,
        // Zones of devices that are off say so in this way.
        Err(why) => return into.absent(&name, &why),
    };
    let step = |enter| Step {
        enter,
        leave: enter - HYSTERESIS_C,
    };
    into.readings.push(Reading {
        kind: Kind::Heat,
        value,
        eased: step(eased),
        strained: step(strained),
        words: format!("{name} {value:.0} degree celsius, {limit}"),
    });
}

fn trips(dir: &Path) -> Trips {
    let mut trips = Trips::default();
    for at in 0..TRIPS_MAX {
        let Ok(kind) = read(&dir.join(format!("trip_point_{at}_type"))) else {
            break;
        };
        let Ok(millis) = number(&dir.join(format!("trip_point_{at}_temp"))) else {
            continue;
        };
        let list = match kind.trim() {
            "passive" => &mut trips.passive,
            "hot" => &mut trips.hot,
            "critical" => &mut trips.critical,
            _ => continue,
        };
        // Trip points that are switched off are at or below freezing.
        if millis > 0.0 {
            list.push(millis / 1000.0);
        }
    }
    for list in [&mut trips.passive, &mut trips.hot, &mut trips.critical] {
        list.sort_by(f64::total_cmp);
    }
    trips
}

/// The limit in words, and from when on it is warm and too warm. From the first passive trip on the kernel watches, at the last it slows things.
fn limits(trips: &Trips, limit_c: Option<f64>) -> Option<(String, f64, f64)> {
    let ceiling = trips.hot.first().or(trips.critical.first()).copied();
    match (&trips.passive[..], trips.hot.first(), limit_c) {
        ([only], ..) => {
            let above = ceiling.map_or(*only + ABOVE_C, |end| (only + end) / 2.0);
            let strained = above.min(only + ABOVE_C).max(*only);
            Some((format!("passive trip {only:.0}"), *only, strained))
        }
        ([first, .., last], ..) => Some((
            format!("passive trips {first:.0} to {last:.0}"),
            *first,
            *last,
        )),
        ([], Some(hot), _) => Some((format!("hot trip {hot:.0}"), hot - HYSTERESIS_C, *hot)),
        ([], None, Some(limit)) => Some((format!("limit {limit:.0}"), limit, limit + ABOVE_C)),
        ([], None, None) => None,
    }
}

fn slowed(dir: &Path, into: &mut Sampled) {
    let name = kind_of(dir);
    let state = |file: &str| number(&dir.join(file));
    let (now, max) = match (state("cur_state"), state("max_state")) {
        (Ok(now), Ok(max)) if max > 0.0 => (now, max),
        (Err(why), _) | (_, Err(why)) => return into.absent(&name, &why),
        // It has no steps to slow by.
        _ => return,
    };
    let step = |enter| Step {
        enter,
        leave: enter,
    };
    into.readings.push(Reading {
        kind: Kind::Heat,
        value: now / max,
        eased: step(f64::MIN_POSITIVE),
        strained: step(0.5),
        words: format!("{name} slowed by the kernel for heat, {now} of {max} steps"),
    });
}

impl Sampled {
    pub(super) fn absent(&mut self, what: &str, why: &str) {
        self.absent.push(Absent {
            what: what.to_owned(),
            why: why.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::reading::Level;
    use super::*;

    fn write(dir: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
    }

    fn sampled(thermal: &Path, limit_c: Option<f64>) -> Sampled {
        let mut sampled = Sampled::default();
        sample(thermal, limit_c, &mut sampled);
        sampled
    }

    /// As the kernel's documentation and the device trees of two boards have it: a laptop (ACPI) and an SoC with the power allocator's two passive trips.
    #[test]
    fn zones_are_judged_by_their_own_trip_points() {
        let dir = tempfile::tempdir().unwrap();
        let acpi = dir.path().join("thermal_zone0");
        write(
            &acpi,
            &[
                ("type", "acpitz\n"),
                ("temp", "92000\n"),
                ("trip_point_0_type", "critical\n"),
                ("trip_point_0_temp", "105000\n"),
                ("trip_point_1_type", "passive\n"),
                ("trip_point_1_temp", "85000\n"),
            ],
        );
        let soc = dir.path().join("thermal_zone1");
        write(
            &soc,
            &[
                ("type", "soc-thermal\n"),
                ("temp", "71250\n"),
                ("trip_point_0_type", "passive\n"),
                ("trip_point_0_temp", "70000\n"),
                ("trip_point_1_type", "passive\n"),
                ("trip_point_1_temp", "85000\n"),
                ("trip_point_2_type", "critical\n"),
                ("trip_point_2_temp", "115000\n"),
            ],
        );
        let cpu = dir.path().join("cooling_device0");
        write(
            &cpu,
            &[
                ("type", "cpufreq-cpu0\n"),
                ("cur_state", "3\n"),
                ("max_state", "10\n"),
            ],
        );
        let fan = dir.path().join("cooling_device1");
        write(
            &fan,
            &[
                ("type", "pwm-fan\n"),
                ("cur_state", "4\n"),
                ("max_state", "4\n"),
            ],
        );
        let seen = sampled(dir.path(), None);
        let told: Vec<(&str, Level)> = seen
            .readings
            .iter()
            .map(|it| (it.words.as_str(), it.level(Level::Normal)))
            .collect();
        assert_eq!(
            told,
            [
                (
                    "cpufreq-cpu0 slowed by the kernel for heat, 3 of 10 steps",
                    Level::Eased
                ),
                (
                    "zone acpitz 92 degree celsius, passive trip 85",
                    Level::Eased
                ),
                (
                    "zone soc-thermal 71 degree celsius, passive trips 70 to 85",
                    Level::Eased
                ),
            ]
        );
        assert_eq!(seen.absent, []);
        for (temp, level) in [
            ("84900", Level::Eased),
            ("85000", Level::Strained),
            ("64999", Level::Normal),
            ("65000", Level::Normal),
        ] {
            write(&soc, &[("temp", temp)]);
            let seen = sampled(dir.path(), None);
            assert_eq!(seen.readings[2].level(Level::Normal), level, "{temp}");
        }
        assert_eq!(
            sampled(dir.path(), None).readings[2].level(Level::Eased),
            Level::Eased,
            "left with some distance"
        );
    }

    #[test]
    fn what_cannot_be_read_is_absent_with_its_reason_and_takes_nothing_else_along() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sampled(&dir.path().join("none"), None).absent.len(), 2);
        let bare = dir.path().join("thermal_zone0");
        write(&bare, &[("type", "cpu-thermal\n"), ("temp", "40000\n")]);
        let off = dir.path().join("thermal_zone1");
        write(
            &off,
            &[
                ("type", "iwlwifi_1\n"),
                ("trip_point_0_type", "passive"),
                ("trip_point_0_temp", "-274000"),
                ("trip_point_1_type", "hot"),
                ("trip_point_1_temp", "90000"),
                ("temp", ""),
            ],
        );
        let odd = dir.path().join("thermal_zone2");
        write(
            &odd,
            &[
                ("temp", "warm\n"),
                ("trip_point_0_type", "passive"),
                ("trip_point_0_temp", "80000"),
            ],
        );
        let seen = sampled(dir.path(), None);
        assert_eq!(seen.readings, []);
        let absent: Vec<String> = seen.absent.iter().map(ToString::to_string).collect();
        for part in [
            "zone cpu-thermal: it has no passive",
            "zone iwlwifi_1: ",
            "zone thermal_zone2: ",
            "\"warm\"",
            "slowed processors: the kernel slows no processor",
        ] {
            assert!(
                absent.iter().any(|one| one.contains(part)),
                "{part:?} in {absent:?}"
            );
        }
        let seen = sampled(dir.path(), Some(39.0));
        assert_eq!(
            seen.readings[0].words,
            "zone cpu-thermal 40 degree celsius, limit 39"
        );
        assert_eq!(seen.readings[0].level(Level::Normal), Level::Eased);
    }
}
