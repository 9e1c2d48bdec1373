//! An engine at work.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cxx::UniquePtr;
use trt_fuse_ir::{Tensor, TensorError, numel};

use super::cuda::{CapturedGraph, Device, DeviceBuffer, HostBuffer, Stream};
use super::engine::{Engine, refused};
use super::error::RuntimeError;
use super::interface::{Taken, TensorSpec, take_inputs};
use crate::tensorrt::bridge;

/// How a session runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct SessionOptions {
    /// Whether the work of a run is captured as a CUDA graph and launched as one. Captured again when shapes change;
    /// where the engine cannot be captured it runs without, and [`Session::graph_refusal`] tells why.
    pub cuda_graph: bool,
}

/// Memory of an input or output, on both sides. It grows and is reused.
struct Slot {
    host: HostBuffer,
    /// None for what TensorRT reads on the host.
    device: Option<DeviceBuffer>,
    /// Extents of the present run.
    dims: Vec<usize>,
    /// Bytes of the present run.
    length: usize,
}

impl Slot {
    fn new(device: &Arc<Device>, spec: &TensorSpec) -> Result<Self, RuntimeError> {
        let on_device = if spec.on_host { None } else { Some(DeviceBuffer::new(device, 0)?) };
        Ok(Self { host: HostBuffer::new(device, 0)?, device: on_device, dims: Vec::new(), length: 0 })
    }

    /// Makes room for a tensor.
    fn hold(&mut self, device: &Arc<Device>, spec: &TensorSpec, dims: &[usize]) -> Result<(), RuntimeError> {
        let length = numel(dims).and_then(|count| spec.carried.byte_len(count)).ok_or_else(|| {
            RuntimeError::Tensor { name: spec.name.clone(), reason: format!("its shape {dims:?} is too large") }
        })?;
        if self.host.length() < length {
            self.host = HostBuffer::new(device, length)?;
        }
        if let Some(buffer) = self.device.as_mut().filter(|buffer| buffer.length() < length) {
            *buffer = DeviceBuffer::new(device, length)?;
        }
        self.dims = dims.to_vec();
        self.length = length;
        Ok(())
    }

    /// Where TensorRT reads or writes.
    fn address(&self) -> usize {
        self.device.as_ref().map_or_else(|| self.host.address(), DeviceBuffer::address)
    }
}

/// Where each tensor lies and how large it is: what a captured graph is good for.
type Layout = Vec<(usize, Vec<usize>)>;

/// An execution context with its own stream and memory. Not for several threads at once: make one for each.
pub struct Session {
    // Dropped in this order: what runs, what it uses, what that needs.
    graph: Option<(Layout, CapturedGraph)>,
    context: UniquePtr<bridge::Context>,
    slots: Vec<Slot>,
    pub(super) stream: Stream,
    engine: Arc<Engine>,
    options: SessionOptions,
    graph_refusal: Option<String>,
}

// SAFETY: TensorRT takes a context from any thread, one at a time, which `&mut self` sees to.
unsafe impl Send for Session {}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session of {:?}", self.engine)
    }
}

impl Session {
    pub(super) fn new(engine: Arc<Engine>, options: SessionOptions) -> Result<Self, RuntimeError> {
        let device = engine.device();
        let stream = Stream::new(device)?;
        let slots = engine.tensors().iter().map(|spec| Slot::new(device, spec)).collect::<Result<_, _>>()?;
        let context = engine.context()?;
        Ok(Self { graph: None, context, slots, stream, engine, options, graph_refusal: None })
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Why runs go without a CUDA graph although one was asked for.
    pub fn graph_refusal(&self) -> Option<&str> {
        self.graph_refusal.as_deref()
    }

    /// Runs the engine on inputs by name, and gives the outputs by name in the engine's order. Types are the model's; inputs
    /// of the model that nothing reads may be given or left out; shapes must lie within the ranges that the engine was built for. After an error the session can be used again.
    ///
    /// # Errors
    /// If an input is missing, unknown or does not fit, or TensorRT or the CUDA driver fail.
    pub fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        self.prepare(inputs)?;
        let ran = self.upload().and_then(|()| self.enqueue()).and_then(|()| self.download());
        // Whatever was put on the stream uses the buffers.
        let finished = self.stream.synchronize();
        ran.and(finished)?;
        self.outputs()
    }

    /// Takes the inputs, tells TensorRT their shapes, and makes room for everything. Nothing is put on the stream.
    pub(super) fn prepare(&mut self, inputs: &[(&str, &Tensor)]) -> Result<(), RuntimeError> {
        let engine = self.engine.clone();
        let read: Vec<(&str, &Tensor)> = inputs.iter().copied().filter(|(name, _)| !engine.is_unread(name)).collect();
        let taken = take_inputs(engine.tensors(), &read)?;
        engine.device().bind()?;
        self.set_inputs(engine.tensors(), &taken)?;
        for (at, spec) in engine.tensors().iter().enumerate().filter(|(_, spec)| !spec.is_input) {
            let dims = self.context.pin_mut().shape(&spec.name).map_err(|why| refused(&why))?;
            let dims: Option<Vec<usize>> = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
            let Some(dims) = dims else {
                let reason = "its shape depends on the data, which sessions do not take yet".to_owned();
                return Err(RuntimeError::Tensor { name: spec.name.clone(), reason });
            };
            self.slot(at)?.hold(engine.device(), spec, &dims)?;
        }
        for (spec, slot) in engine.tensors().iter().zip(&self.slots) {
            // SAFETY: the slot's memory holds the tensor in the shape that TensorRT tells, and lives until it is told
            // another address or the session ends.
            let set = unsafe { self.context.pin_mut().set_address(&spec.name, slot.address()) };
            set.map_err(|why| refused(&why))?;
        }
        Ok(())
    }

    fn slot(&mut self, at: usize) -> Result<&mut Slot, RuntimeError> {
        let missing = || RuntimeError::TensorRt { message: format!("the engine has no tensor {at}") };
        self.slots.get_mut(at).ok_or_else(missing)
    }

    fn set_inputs(&mut self, specs: &[TensorSpec], taken: &[Taken<'_>]) -> Result<(), RuntimeError> {
        let engine = self.engine.clone();
        for (at, tensor) in taken {
            let Some(spec) = specs.get(*at) else { continue };
            let slot = self.slot(*at)?;
            slot.hold(engine.device(), spec, tensor.dims())?;
            if let Some(room) = slot.host.bytes_mut().get_mut(..tensor.byte_len()) {
                match tensor.splat_element() {
                    Some(element) => {
                        room.chunks_exact_mut(element.len().max(1)).for_each(|to| to.copy_from_slice(element))
                    }
                    None => room.copy_from_slice(tensor.bytes()),
                }
            }
            let extents: Vec<i64> = tensor.dims().iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect();
            self.context.pin_mut().set_shape(&spec.name, &extents).map_err(|why| refused(&why))?;
            if spec.on_host {
                let address = self.slot(*at)?.address();
                // SAFETY: shapes follow from these values, so that TensorRT reads them from now on; see `prepare`.
                let set = unsafe { self.context.pin_mut().set_address(&spec.name, address) };
                set.map_err(|why| refused(&why))?;
            }
        }
        Ok(())
    }

    /// Puts the copies of all inputs on the stream.
    pub(super) fn upload(&mut self) -> Result<(), RuntimeError> {
        for (spec, slot) in self.engine.tensors().iter().zip(&self.slots) {
            if let Some(device) = slot.device.as_ref().filter(|_| spec.is_input) {
                // SAFETY: `run` and `measure` synchronize before either is touched again.
                unsafe { self.stream.upload(device, &slot.host, slot.length)? };
            }
        }
        Ok(())
    }

    /// Puts the engine's work on the stream.
    pub(super) fn enqueue(&mut self) -> Result<(), RuntimeError> {
        if !self.options.cuda_graph || self.graph_refusal.is_some() {
            return self.enqueue_plainly();
        }
        let layout: Layout = self.slots.iter().map(|slot| (slot.address(), slot.dims.clone())).collect();
        if self.graph.as_ref().is_none_or(|(captured, _)| *captured != layout) {
            self.graph = None;
            // TensorRT allocates on the first run of a shape, which cannot be captured.
            self.enqueue_plainly()?;
            self.stream.synchronize()?;
            let Self { stream, context, .. } = self;
            let captured = stream.capture(|| {
                // SAFETY: as in `enqueue_plainly`.
                unsafe { context.pin_mut().enqueue(stream.address()) }.map_err(|why| refused(&why))
            });
            match captured {
                Ok(graph) => self.graph = Some((layout, graph)),
                Err(why) => {
                    self.graph_refusal = Some(why.to_string());
                    return self.enqueue_plainly();
                }
            }
        }
        match &self.graph {
            // SAFETY: the layout is the one that was captured, so that the buffers are the same.
            Some((_, graph)) => unsafe { self.stream.launch(graph) },
            None => self.enqueue_plainly(),
        }
    }

    fn enqueue_plainly(&mut self) -> Result<(), RuntimeError> {
        let stream = self.stream.address();
        // SAFETY: the stream and all memory live as long as the session, which synchronizes before it touches either.
        unsafe { self.context.pin_mut().enqueue(stream) }.map_err(|why| refused(&why))
    }

    /// Puts the copies of all outputs on the stream.
    pub(super) fn download(&mut self) -> Result<(), RuntimeError> {
        for (spec, slot) in self.engine.tensors().iter().zip(&mut self.slots) {
            if let Some(device) = slot.device.as_ref().filter(|_| !spec.is_input) {
                // SAFETY: `run` and `measure` synchronize before either is touched again.
                unsafe { self.stream.download(&mut slot.host, device, slot.length)? };
            }
        }
        Ok(())
    }

    /// The outputs as they lie on the host.
    fn outputs(&self) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let mut outputs = Vec::new();
        for (spec, slot) in self.engine.tensors().iter().zip(&self.slots).filter(|(spec, _)| !spec.is_input) {
            let bytes = slot.host.bytes().get(..slot.length).unwrap_or_default();
            let fail = |why: TensorError| RuntimeError::Tensor { name: spec.name.clone(), reason: why.to_string() };
            let tensor = Tensor::new(spec.carried, &slot.dims, Bytes::copy_from_slice(bytes)).map_err(fail)?;
            outputs.push((spec.name.clone(), spec.give(tensor)?));
        }
        Ok(outputs)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Memory must not go while the stream uses it.
        let _ = self.stream.synchronize();
    }
}
