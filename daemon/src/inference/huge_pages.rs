//! A loaded model's weights in huge pages: every token reads all of them, and with pages of 4 KiB the processor spends a part of that
//! on finding out where they are.
//!
//! Measured on the default language model (one thread, a virtual machine, six sessions of the same graph in one process): 8.2 to 10.3 ms a token, by
//! where the kernel happened to put the weights; 8.2 to 8.5 ms with them in huge pages.
//!
//! Done after loading, and not by how memory is asked for: ONNX Runtime takes it from the C library in pieces smaller than a huge page, in heaps
//! that grow. Best effort: a kernel before Linux 6.1, or one without the free memory, leaves pages as they are, and everything works as
//! before. The key-value caches are refused huge pages where they are reserved ([`chat`](super::chat)), and nothing here changes that. It never frees
//! or moves anything that a program could see.

#![expect(unsafe_code, reason = "advice about memory that others own")]

use std::{
    fs, io,
    ops::Range,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::libc;
use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};

/// Where the kernel says how large a huge page is, in bytes.
const SIZE_FILE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";

/// A mapping that is touched to a smaller part would take more memory than before. In percent.
const TOUCHED_MIN: u64 = 85;

/// Time from the end of loading. It takes the kernel some 100 ms, in which the process can take no new memory; who waited for the model asks at once,
/// and had its first token some 70 ms later without this.
const LATER: Duration = Duration::from_secs(1);

/// Two models that are loaded side by side are one after the other here.
static GATHERING: Mutex<()> = Mutex::new(());

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gathered {
    bytes: u64,
    /// Bytes that the kernel left as they were.
    left: u64,
}

/// Gathers the process's large allocations in huge pages, [`LATER`] and on a thread of its own: whoever waits for the model need not wait for this.
pub(super) fn gather_later(model: &str) {
    let name = model.to_owned();
    let gather = move || {
        thread::sleep(LATER);
        let _one = GATHERING.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        match gather() {
            Ok(Gathered { bytes, left }) => {
                let took = begun.elapsed();
                tracing::debug!(
                    model = name,
                    mib = bytes >> 20,
                    left_mib = left >> 20,
                    ?took,
                    "memory lies in huge pages"
                );
            }
            Err(error) => {
                tracing::debug!(model = name, %error, "memory stays in small pages");
            }
        }
    };
    let spawned = thread::Builder::new()
        .name("huge-pages".into())
        .spawn(gather);
    if let Err(error) = spawned {
        tracing::debug!(model, %error, "memory stays in small pages");
    }
}

fn gather() -> io::Result<Gathered> {
    let page: u64 = fs::read_to_string(SIZE_FILE)?
        .trim()
        .parse()
        .map_err(io::Error::other)?;
    let maps = Process::myself()
        .and_then(|process| process.smaps())
        .map_err(io::Error::other)?;
    let mut gathered = Gathered { bytes: 0, left: 0 };
    for range in maps.iter().filter_map(|map| worth_while(map, page)) {
        let bytes = range.end - range.start;
        match collapse(&range) {
            Ok(()) => gathered.bytes += bytes,
            // Caches that want no huge pages, and memory that is too scattered or has been given back meanwhile.
            Err(_) => gathered.left += bytes,
        }
    }
    Ok(gathered)
}

/// The whole huge pages in a mapping, if it is private memory that is used nearly all.
fn worth_while(map: &MemoryMap, page: u64) -> Option<Range<u64>> {
    let own = MMPermissions::READ | MMPermissions::WRITE | MMPermissions::PRIVATE;
    let is_memory = matches!(map.pathname, MMapPath::Anonymous | MMapPath::Heap);
    let (start, end) = map.address;
    let touched = *map.extension.map.get("Rss")?;
    let is_used = touched.saturating_mul(100) >= (end - start).saturating_mul(TOUCHED_MIN);
    if !(is_memory && is_used && map.perms.contains(own) && page > 0) {
        return None;
    }
    let whole = start.checked_next_multiple_of(page)?..end / page * page;
    (!whole.is_empty()).then_some(whole)
}

/// Pages are gathered in huge ones now, whatever is said in `/sys/kernel/mm/transparent_hugepage/enabled`.
fn collapse(range: &Range<u64>) -> io::Result<()> {
    let start = usize::try_from(range.start).map_err(io::Error::other)?;
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    // SAFETY: this advice changes neither what memory holds nor whether it is mapped, only which pages hold it; an address where nothing is mapped (any
    // more) is an error, not a fault.
    let result = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_COLLAPSE) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use memmap2::{Advice, MmapMut};

    use super::*;

    fn huge_bytes(address: u64) -> u64 {
        let maps = Process::myself().unwrap().smaps().unwrap();
        let map = maps
            .iter()
            .find(|map| map.address.0 <= address && address < map.address.1);
        map.unwrap().extension.map["AnonHugePages"]
    }

    #[test]
    fn what_is_used_is_gathered_and_unchanged_and_what_is_hardly_touched_stays() {
        let page: usize = match fs::read_to_string(SIZE_FILE) {
            Ok(text) => text.trim().parse().unwrap(),
            Err(error) => return println!("not tried: {SIZE_FILE}: {error}"),
        };
        let mut used = MmapMut::map_anon(4 * page).unwrap();
        for (at, byte) in used.iter_mut().enumerate() {
            *byte = (at / 7) as u8;
        }
        let mut sparse = MmapMut::map_anon(4 * page).unwrap();
        // Two mappings that differ in nothing would be one to the kernel.
        sparse.advise(Advice::DontDump).unwrap();
        sparse[3 * page] = 1;
        let start = (used.as_ptr() as u64).next_multiple_of(page as u64);
        match collapse(&(start..start + page as u64)) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                return println!("not tried: this kernel cannot: {error}");
            }
            result => result.unwrap(),
        }
        let gathered = gather().unwrap();
        assert!(gathered.bytes >= 3 * page as u64, "{gathered:?}");
        assert!(huge_bytes(start) >= 3 * page as u64);
        assert_eq!(huge_bytes(sparse.as_ptr() as u64), 0);
        let is_same = |(at, &byte): (usize, &u8)| byte == (at / 7) as u8;
        assert!(used.iter().enumerate().all(is_same));
    }
}
