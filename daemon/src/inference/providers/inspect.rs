//! Devices as ONNX Runtime lists them, with what they say of themselves.
//!
//! `ort` 2.0.0-rc.15 has no way to a device's metadata, in which providers put their version and the bus address of a device, so
//! this module asks the C interface. It is the daemon's only module with `unsafe`, and does nothing else.

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char},
    path::Path,
    ptr,
};

use ort::{AsPointer as _, device::Device, environment::Environment, memory::DeviceType};

use super::candidate::{CPU, Candidate, Kind, NAME_BYTES_MAX, Origin};

/// Most facts that are taken from one device. Ours have up to six; a library that lists thousands is not believed.
const FACTS_MAX: usize = 64;

/// Everything that `environment` lists besides the CPU provider. `origin` is where the code of what is listed came from.
pub(super) fn devices(environment: &Environment, origin: &Origin) -> Vec<Candidate> {
    environment
        .devices()
        .filter_map(|device| candidate(&device, origin))
        .collect()
}

/// The devices of `environment` that are `candidate`. There may be several: two cards of one kind.
pub(super) fn devices_of<'e>(
    environment: &'e Environment,
    candidate: &Candidate,
) -> Vec<Device<'e>> {
    environment
        .devices()
        .filter(|device| {
            let hardware = device.hardware_device();
            device.ep().is_ok_and(|name| name == candidate.provider)
                && kind(hardware.ty()) == candidate.kind
                && (candidate.is_cpu() || hardware.id() == candidate.device_id)
        })
        .collect()
}

fn candidate(device: &Device<'_>, origin: &Origin) -> Option<Candidate> {
    // A name that is no text, or that `ort` could not copy, cannot be asked for either.
    let provider = device
        .ep()
        .ok()
        .filter(|name| (1..=NAME_BYTES_MAX).contains(&name.len()) && *name != CPU)?;
    let hardware = device.hardware_device();
    Some(Candidate {
        provider: provider.to_owned(),
        kind: kind(hardware.ty()),
        origin: origin.clone(),
        vendor: hardware.vendor().unwrap_or_default().to_owned(),
        vendor_id: vendor_id(device),
        device_id: hardware.id(),
        facts: facts(device),
    })
}

fn kind(ty: DeviceType) -> Kind {
    match ty {
        DeviceType::GPU => Kind::Gpu,
        DeviceType::NPU => Kind::Npu,
        _ => Kind::Cpu,
    }
}

#[expect(unsafe_code, reason = "ort has no accessor for it, see the module")]
fn vendor_id(device: &Device<'_>) -> u32 {
    // SAFETY: both pointers belong to the environment, which `device` borrows from and which lives as long as the process.
    unsafe {
        let hardware = (ort::api().EpDevice_Device)(device.ptr());
        (ort::api().HardwareDevice_VendorId)(hardware)
    }
}

/// Where a plugin says that it lies is left out: it is where it was told to be.
#[expect(unsafe_code, reason = "ort has no accessor for it, see the module")]
fn facts(device: &Device<'_>) -> BTreeMap<String, String> {
    // SAFETY: as above; the pairs belong to the device, and are copied before it could go.
    let (mut facts, hardware) = unsafe {
        let hardware = (ort::api().EpDevice_Device)(device.ptr());
        (
            pairs((ort::api().EpDevice_EpMetadata)(device.ptr())),
            pairs((ort::api().HardwareDevice_Metadata)(hardware)),
        )
    };
    facts.remove("library_path");
    facts.extend(
        hardware
            .into_iter()
            .map(|(key, value)| (format!("device.{key}"), value)),
    );
    facts
}

/// Copies ONNX Runtime's pairs; what is no UTF-8 is replaced.
///
/// # Safety
/// `from` must be null or point to live pairs.
#[expect(unsafe_code, reason = "ort has no accessor for it, see the module")]
unsafe fn pairs(from: *const ort::sys::OrtKeyValuePairs) -> BTreeMap<String, String> {
    if from.is_null() {
        return BTreeMap::new();
    }
    let (mut keys, mut values, mut count) = (ptr::null(), ptr::null(), 0usize);
    // SAFETY: `from` is live by this function's contract; ONNX Runtime writes two arrays of `count` C strings that live with it.
    unsafe {
        (ort::api().GetKeyValuePairs)(from, &mut keys, &mut values, &mut count);
        (0..count.min(FACTS_MAX))
            .map(|index| (text(*keys.add(index)), text(*values.add(index))))
            .collect()
    }
}

/// # Safety
/// `from` must be null or a C string.
#[expect(unsafe_code, reason = "ort has no accessor for it, see the module")]
unsafe fn text(from: *const c_char) -> String {
    if from.is_null() {
        return String::new();
    }
    // SAFETY: a C string by this function's contract.
    unsafe { CStr::from_ptr(from) }
        .to_string_lossy()
        .chars()
        .take(256)
        .collect()
}

/// A name to register the library at `path` under: its file's, which ONNX Runtime wants to be unique.
pub(super) fn registration_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy());
    let stem = stem.as_deref().unwrap_or("provider");
    stem.trim_start_matches("lib")
        .chars()
        .take(NAME_BYTES_MAX)
        .collect()
}
