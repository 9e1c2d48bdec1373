//! What is used of the CUDA driver, each thing owned and released by its own type.

use std::ffi::c_void;
use std::fmt;
use std::sync::{Arc, OnceLock};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::error::RuntimeError;
use crate::tensorrt::ComputeCapability;

/// A GPU, whose primary context is kept alive.
pub struct Device {
    ordinal: i32,
    raw: sys::CUdevice,
    context: sys::CUcontext,
    capability: ComputeCapability,
    name: String,
}

// SAFETY: the driver takes a primary context from any thread, and several at once.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPU {} ({}, compute capability {})", self.ordinal, self.name, self.capability)
    }
}

fn failed(call: &'static str) -> impl Fn(DriverError) -> RuntimeError {
    move |error| {
        let name = format!("{:?}", error.0);
        let text = error.error_string().ok().map(|text| text.to_string_lossy().into_owned());
        RuntimeError::Cuda { call, message: text.map_or(name.clone(), |text| format!("{text} ({name})")) }
    }
}

/// Whether the driver's library is on this machine.
fn has_driver() -> bool {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    // SAFETY: opening the CUDA driver's library runs its initializers, which have no preconditions.
    *PRESENT.get_or_init(|| unsafe { sys::is_culib_present() })
}

impl Device {
    /// A GPU by its number.
    ///
    /// # Errors
    /// If there is no driver or no such GPU, or the driver fails.
    pub fn open(ordinal: i32) -> Result<Arc<Self>, RuntimeError> {
        // Everything below would panic without it.
        if !has_driver() {
            return Err(RuntimeError::NoDriver);
        }
        match result::init() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => {
                return Err(RuntimeError::NoGpu { ordinal, count: 0 });
            }
            other => other.map_err(failed("cuInit"))?,
        }
        let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
        if !(0..count).contains(&ordinal) {
            return Err(RuntimeError::NoGpu { ordinal, count });
        }
        let raw = result::device::get(ordinal).map_err(failed("cuDeviceGet"))?;
        let attribute = |attribute| {
            // SAFETY: `raw` is a device that the driver gave.
            unsafe { result::device::get_attribute(raw, attribute) }.map_err(failed("cuDeviceGetAttribute"))
        };
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        let number = |value: i32| u8::try_from(value).unwrap_or(u8::MAX);
        let capability = ComputeCapability { major: number(attribute(MAJOR)?), minor: number(attribute(MINOR)?) };
        let name = result::device::get_name(raw).map_err(failed("cuDeviceGetName"))?;
        // SAFETY: `raw` is a device that the driver gave.
        let context = unsafe { result::primary_ctx::retain(raw) }.map_err(failed("cuDevicePrimaryCtxRetain"))?;
        Ok(Arc::new(Self { ordinal, raw, context, capability, name }))
    }

    /// Its number.
    pub fn ordinal(&self) -> i32 {
        self.ordinal
    }

    /// Its generation.
    pub fn capability(&self) -> ComputeCapability {
        self.capability
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Free and all bytes of its memory, other programs' included.
    ///
    /// # Errors
    /// If the CUDA driver fails.
    pub fn memory(&self) -> Result<(usize, usize), RuntimeError> {
        self.bind()?;
        result::mem_get_info().map_err(failed("cuMemGetInfo"))
    }

    /// Makes its context that of this thread, as TensorRT and the calls below want.
    pub(crate) fn bind(&self) -> Result<(), RuntimeError> {
        // SAFETY: the context is retained as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("cuCtxSetCurrent"))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: retained in `open`. An error leaves nothing to be done.
        let _ = unsafe { result::primary_ctx::release(self.raw) };
    }
}

/// A stream that does not wait for the default one.
pub(super) struct Stream {
    device: Arc<Device>,
    raw: sys::CUstream,
}

// SAFETY: the driver takes a stream from any thread.
unsafe impl Send for Stream {}

impl Stream {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, RuntimeError> {
        device.bind()?;
        let raw = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed("cuStreamCreate"))?;
        Ok(Self { device: device.clone(), raw })
    }

    /// As TensorRT takes it.
    pub(super) fn address(&self) -> usize {
        self.raw as usize
    }

    pub(super) fn synchronize(&self) -> Result<(), RuntimeError> {
        self.device.bind()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.raw) }.map_err(failed("cuStreamSynchronize"))
    }

    /// Copies the first `count` bytes to the device, when the stream gets there.
    ///
    /// # Safety
    /// Both buffers are left alone until the stream is synchronized.
    pub(super) unsafe fn upload(&self, to: &DeviceBuffer, from: &HostBuffer, count: usize) -> Result<(), RuntimeError> {
        let source = from.bytes().get(..count).filter(|_| count <= to.length).ok_or_else(too_long)?;
        // SAFETY: the device's buffer is as long, and the caller keeps both.
        unsafe { result::memcpy_htod_async(to.raw, source, self.raw) }.map_err(failed("cuMemcpyHtoDAsync"))
    }

    /// Copies the first `count` bytes to the host, when the stream gets there.
    ///
    /// # Safety
    /// Both buffers are left alone until the stream is synchronized.
    pub(super) unsafe fn download(
        &self,
        to: &mut HostBuffer,
        from: &DeviceBuffer,
        count: usize,
    ) -> Result<(), RuntimeError> {
        let target = to.bytes_mut().get_mut(..count).filter(|_| count <= from.length).ok_or_else(too_long)?;
        // SAFETY: the device's buffer is as long, and the caller keeps both.
        unsafe { result::memcpy_dtoh_async(target, from.raw, self.raw) }.map_err(failed("cuMemcpyDtoHAsync"))
    }

    /// What `enqueue` puts on the stream, as a graph to be launched again and again. Nothing runs.
    pub(super) fn capture(
        &self,
        enqueue: impl FnOnce() -> Result<(), RuntimeError>,
    ) -> Result<CapturedGraph, RuntimeError> {
        self.device.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::begin_capture(self.raw, mode) }.map_err(failed("cuStreamBeginCapture"))?;
        let enqueued = enqueue();
        // Ended in any case: a stream that captures is of no use for anything else.
        // SAFETY: as above.
        let graph = unsafe { result::stream::end_capture(self.raw) }.map_err(failed("cuStreamEndCapture"));
        if let Err(why) = enqueued {
            // A capture that failed has no graph.
            if let Some(graph) = graph.ok().filter(|graph| !graph.is_null()) {
                // SAFETY: just made, and used for nothing.
                let _ = unsafe { result::graph::destroy(graph) };
            }
            return Err(why);
        }
        let graph = graph?;
        if graph.is_null() {
            return Err(RuntimeError::Cuda { call: "cuStreamEndCapture", message: "no graph was captured".to_owned() });
        }
        let flags = sys::CUgraphInstantiate_flags(0);
        // SAFETY: `graph` was just made.
        let executable = unsafe { result::graph::instantiate(graph, flags) }.map_err(failed("cuGraphInstantiate"));
        // SAFETY: the executable graph is a copy, so that this one is used no more.
        let _ = unsafe { result::graph::destroy(graph) };
        Ok(CapturedGraph { device: self.device.clone(), raw: executable? })
    }

    /// # Safety
    /// The buffers that the graph was captured with are alive, and left alone until the stream is synchronized.
    pub(super) unsafe fn launch(&self, graph: &CapturedGraph) -> Result<(), RuntimeError> {
        // SAFETY: both live as long as their owners.
        unsafe { result::graph::launch(graph.raw, self.raw) }.map_err(failed("cuGraphLaunch"))
    }

    /// Lets what is put on the stream from here on wait for an event of any stream.
    pub(super) fn wait(&self, event: &Event) -> Result<(), RuntimeError> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both live as long as their owners.
        unsafe { result::stream::wait_event(self.raw, event.raw, flags) }.map_err(failed("cuStreamWaitEvent"))
    }

    /// Marks where the stream is now.
    pub(super) fn record(&self, event: &Event) -> Result<(), RuntimeError> {
        // SAFETY: both live as long as their owners.
        unsafe { result::event::record(event.raw, self.raw) }.map_err(failed("cuEventRecord"))
    }
}

fn too_long() -> RuntimeError {
    RuntimeError::Cuda { call: "cuMemcpyAsync", message: "a copy is longer than its buffer".to_owned() }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: created in `new`; work still on it is finished first.
            let _ = unsafe { result::stream::destroy(self.raw) };
        }
    }
}

/// A CUDA graph ready to run.
pub(super) struct CapturedGraph {
    device: Arc<Device>,
    raw: sys::CUgraphExec,
}

// SAFETY: the driver takes an executable graph from any thread, one at a time.
unsafe impl Send for CapturedGraph {}

impl Drop for CapturedGraph {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made in `capture`.
            let _ = unsafe { result::graph::exec_destroy(self.raw) };
        }
    }
}

/// A moment on a stream, with its time.
pub(super) struct Event {
    device: Arc<Device>,
    raw: sys::CUevent,
}

impl Event {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, RuntimeError> {
        device.bind()?;
        let raw = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(failed("cuEventCreate"))?;
        Ok(Self { device: device.clone(), raw })
    }

    /// Waits until a stream has reached it.
    pub(super) fn synchronize(&self) -> Result<(), RuntimeError> {
        self.device.bind()?;
        // SAFETY: it lives as long as `self`.
        unsafe { result::event::synchronize(self.raw) }.map_err(failed("cuEventSynchronize"))
    }

    /// Milliseconds from another event of the same stream to this one, both reached.
    pub(super) fn since(&self, earlier: &Self) -> Result<f64, RuntimeError> {
        // SAFETY: both live as long as their owners.
        let elapsed = unsafe { result::event::elapsed(earlier.raw, self.raw) };
        elapsed.map(f64::from).map_err(failed("cuEventElapsedTime"))
    }
}

// SAFETY: the driver takes an event from any thread.
unsafe impl Send for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: created in `new`.
            let _ = unsafe { result::event::destroy(self.raw) };
        }
    }
}

/// Memory of the GPU.
pub(super) struct DeviceBuffer {
    device: Arc<Device>,
    raw: sys::CUdeviceptr,
    length: usize,
}

impl DeviceBuffer {
    /// Memory of a device.
    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Copies bytes to its beginning, and returns when they are there.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> Result<(), RuntimeError> {
        self.device.bind()?;
        if bytes.len() > self.length {
            return Err(too_long());
        }
        // SAFETY: the buffer is as long, and borrowed alone.
        unsafe { result::memcpy_htod_sync(self.raw, bytes) }.map_err(failed("cuMemcpyHtoD"))?;
        // The copy may still be on its way from the driver's own memory, and other streams do not wait for it.
        // SAFETY: null is the default stream, which is always there.
        unsafe { result::stream::synchronize(std::ptr::null_mut()) }.map_err(failed("cuStreamSynchronize"))
    }

    /// Copies bytes from its beginning.
    pub(super) fn read(&self, bytes: &mut [u8]) -> Result<(), RuntimeError> {
        self.device.bind()?;
        if bytes.len() > self.length {
            return Err(too_long());
        }
        // SAFETY: the buffer is as long.
        unsafe { result::memcpy_dtoh_sync(bytes, self.raw) }.map_err(failed("cuMemcpyDtoH"))
    }

    /// Not initialized. One byte where none is wanted, so that it has an address.
    pub(super) fn new(device: &Arc<Device>, length: usize) -> Result<Self, RuntimeError> {
        device.bind()?;
        let length = length.max(1);
        // SAFETY: read by kernels only, after they or a copy wrote it.
        let raw = unsafe { result::malloc_sync(length) }.map_err(failed("cuMemAlloc"))?;
        Ok(Self { device: device.clone(), raw, length })
    }

    pub(super) fn address(&self) -> usize {
        self.raw as usize
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: allocated in `new`; the driver waits for work that uses it.
            let _ = unsafe { result::free_sync(self.raw) };
        }
    }
}

/// Memory of the host that the GPU copies from and to directly.
pub(super) struct HostBuffer {
    device: Arc<Device>,
    raw: *mut c_void,
    length: usize,
}

// SAFETY: owned memory, which any thread may read and write.
unsafe impl Send for HostBuffer {}

impl HostBuffer {
    /// Zeros. One byte where none is wanted, so that it has an address.
    pub(super) fn new(device: &Arc<Device>, length: usize) -> Result<Self, RuntimeError> {
        device.bind()?;
        let length = length.max(1);
        // SAFETY: initialized below, before anything reads it.
        let raw = unsafe { result::malloc_host(length, 0) }.map_err(failed("cuMemHostAlloc"))?;
        // SAFETY: the driver gave `length` bytes.
        unsafe { raw.cast::<u8>().write_bytes(0, length) };
        Ok(Self { device: device.clone(), raw, length })
    }

    pub(super) fn address(&self) -> usize {
        self.raw as usize
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `length` initialized bytes, owned by `self`.
        unsafe { std::slice::from_raw_parts(self.raw.cast(), self.length) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.raw.cast(), self.length) }
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: allocated in `new`; its owner has synchronized the stream that copies.
            let _ = unsafe { result::free_host(self.raw) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_there_is_one_clear_error() {
        match Device::open(0) {
            Ok(device) => println!("not tested: this machine has {device:?}"),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("driver") || text.contains("cuInit"), "{text}");
                assert!(!text.contains('\n'), "{text}");
            }
        }
    }
}
