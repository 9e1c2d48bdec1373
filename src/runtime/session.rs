//! An engine at work.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cxx::UniquePtr;
use trt_fuse_ir::{DType, Tensor, TensorError, numel};

use super::cuda::{CapturedGraph, Device, DeviceBuffer, HostBuffer, Stream};
use super::engine::{Engine, refused};
use super::error::RuntimeError;
use super::interface::{Taken, TensorSpec, take_inputs, take_placed};
use super::memory::{DeviceTensor, SharedMemory};
use crate::tensorrt::bridge;

/// How a session runs.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Whether the work of a run is captured as a CUDA graph and launched as one. Captured again when shapes or places
    /// change; where the engine cannot be captured it runs without, and [`Session::graph_refusal`] tells why.
    pub cuda_graph: bool,
    /// Memory for temporaries that other sessions use too; the session's own if there is none.
    pub memory: Option<Arc<SharedMemory>>,
}

/// Memory of an input or output, on both sides. It grows and is reused.
struct Slot {
    host: HostBuffer,
    /// None for what TensorRT reads on the host.
    device: Option<DeviceBuffer>,
    /// Extents of the present run; none while only the data can tell.
    dims: Option<Vec<usize>>,
    /// Whether the data tell the extents. TensorRT says so before the first run, and then the extents of the last one.
    by_data: bool,
    /// Bytes of the present run.
    length: usize,
    /// Where TensorRT reads or writes in the present run.
    address: usize,
}

impl Slot {
    fn new(device: &Arc<Device>, spec: &TensorSpec) -> Result<Self, RuntimeError> {
        let on_device = if spec.on_host { None } else { Some(DeviceBuffer::new(device, 0)?) };
        Ok(Self {
            host: HostBuffer::new(device, 0)?,
            device: on_device,
            dims: None,
            by_data: false,
            length: 0,
            address: 0,
        })
    }

    /// Makes room on both sides, where TensorRT reads or writes from now on.
    fn hold(&mut self, device: &Arc<Device>, length: usize) -> Result<(), RuntimeError> {
        self.hold_on_host(device, length)?;
        if let Some(buffer) = self.device.as_mut().filter(|buffer| buffer.length() < length) {
            // The old one goes first: both at once may be too much.
            *buffer = DeviceBuffer::new(device, 0)?;
            *buffer = DeviceBuffer::new(device, length)?;
        }
        self.length = length;
        self.address = self.device.as_ref().map_or_else(|| self.host.address(), DeviceBuffer::address);
        Ok(())
    }

    fn hold_on_host(&mut self, device: &Arc<Device>, length: usize) -> Result<(), RuntimeError> {
        if self.host.length() < length {
            self.host = HostBuffer::new(device, 0)?;
            self.host = HostBuffer::new(device, length)?;
        }
        Ok(())
    }
}

/// What a captured graph is good for.
#[derive(PartialEq, Eq)]
struct Layout {
    /// Where each tensor lies and how large it is.
    tensors: Vec<(usize, Option<Vec<usize>>)>,
    /// Where temporaries lie.
    memory: usize,
    /// What TensorRT reads on the host, which it does while work is put on a stream: the graph has it in itself.
    host_inputs: Vec<Vec<u8>>,
}

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
    /// Whether work may be on the stream.
    busy: bool,
}

// SAFETY: TensorRT takes a context from any thread, one at a time, which `&mut self` sees to.
unsafe impl Send for Session {}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session of {:?}", self.engine)
    }
}

/// A run on its way. Dropped, it waits for the end.
#[derive(Debug)]
#[must_use = "a run that is dropped gives no outputs"]
pub struct Running<'s> {
    session: &'s mut Session,
}

impl Running<'_> {
    /// Waits for the outputs: by name, in the engine's order.
    ///
    /// # Errors
    /// If TensorRT or the CUDA driver failed.
    pub fn wait(self) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        self.session.finish()?;
        self.session.outputs()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.session.finish();
    }
}

impl Session {
    pub(super) fn new(engine: Arc<Engine>, options: SessionOptions) -> Result<Self, RuntimeError> {
        let device = engine.device();
        if let Some(memory) = &options.memory {
            if memory.device().ordinal() != device.ordinal() {
                let reason = format!("the shared memory is on {:?}, the engine on {device:?}", memory.device());
                return Err(RuntimeError::TensorRt { message: reason });
            }
            memory.hold(engine.memory())?;
        }
        let stream = Stream::new(device)?;
        let slots = engine.tensors().iter().map(|spec| Slot::new(device, spec)).collect::<Result<_, _>>()?;
        let context = engine.context(options.memory.is_none())?;
        Ok(Self { graph: None, context, slots, stream, engine, options, graph_refusal: None, busy: false })
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Why runs go without a CUDA graph although one was asked for.
    pub fn graph_refusal(&self) -> Option<&str> {
        self.graph_refusal.as_deref()
    }

    /// Runs the engine on inputs by name, and gives the outputs by name in the engine's order. Types are the model's;
    /// inputs of the model that nothing reads may be given or left out; shapes must lie within the ranges that the engine
    /// was built for, and values that were fixed must be those. After an error the session can be used again.
    ///
    /// # Errors
    /// If an input is missing, unknown or does not fit, or TensorRT or the CUDA driver fail.
    pub fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        self.run_async(inputs)?.wait()
    }

    /// As [`Session::run`], and returns while the GPU works. The inputs have been copied.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_async(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Running<'_>, RuntimeError> {
        self.prepare(inputs)?;
        let ran = self.upload().and_then(|()| self.enqueue()).and_then(|()| self.download());
        if let Err(why) = ran {
            // Whatever was put on the stream uses the buffers. What failed first is the cause.
            let _ = self.finish();
            return Err(why);
        }
        Ok(Running { session: self })
    }

    /// Runs the engine on inputs in memory of the GPU, and writes the outputs there: nothing is copied. All tensors of the
    /// engine are given, but for inputs whose values decide shapes, or whose elements the engine was built for a range of, and
    /// outputs whose shape the data tell, which engines that are run like this must not have. Returns when the GPU is done.
    ///
    /// # Errors
    /// If a tensor is missing, unknown or does not fit, or TensorRT or the CUDA driver fail.
    pub fn run_on_device(
        &mut self,
        inputs: &[(&str, &DeviceTensor)],
        outputs: &mut [(&str, &mut DeviceTensor)],
    ) -> Result<(), RuntimeError> {
        self.finish()?;
        let engine = self.engine.clone();
        engine.device().bind()?;
        let mut given: Vec<(&str, &DeviceTensor)> = inputs.to_vec();
        let taken = take_placed(engine.tensors(), true, &given)?;
        for (at, tensor) in taken {
            self.place(at, tensor)?;
            let spec = engine.tensors().get(at).ok_or_else(|| no_tensor(at))?;
            let extents: Vec<i64> = tensor.dims().iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect();
            self.context.pin_mut().set_shape(&spec.name, &extents).map_err(|why| refused(&why))?;
        }
        given.clear();
        given.extend(outputs.iter().map(|(name, tensor)| (*name, &**tensor)));
        for (at, tensor) in take_placed(engine.tensors(), false, &given)? {
            let spec = engine.tensors().get(at).ok_or_else(|| no_tensor(at))?;
            let wanted = self.extents(at, &spec.name)?.ok_or_else(|| RuntimeError::Tensor {
                name: spec.name.clone(),
                reason: "its shape depends on the data, so that it cannot be given beforehand".to_owned(),
            })?;
            if wanted != tensor.dims() {
                let (expected, found) = (format!("{wanted:?}"), tensor.dims().to_vec());
                return Err(RuntimeError::Shape { name: spec.name.clone(), expected, found });
            }
            self.place(at, tensor)?;
        }
        self.set_addresses()?;
        let ran = self.enqueue();
        let finished = self.finish();
        ran.and(finished)
    }

    /// Takes a tensor's memory in place of a slot's own, for one run.
    fn place(&mut self, at: usize, tensor: &DeviceTensor) -> Result<(), RuntimeError> {
        let (here, there) = (self.engine.device(), tensor.buffer.device());
        if here.ordinal() != there.ordinal() {
            let reason = format!("it is on {there:?}, the engine on {here:?}");
            return Err(RuntimeError::Tensor { name: self.spec(at)?.name, reason });
        }
        let slot = self.slot(at)?;
        slot.dims = Some(tensor.dims().to_vec());
        slot.length = 0;
        slot.address = tensor.buffer.address();
        Ok(())
    }

    fn spec(&self, at: usize) -> Result<TensorSpec, RuntimeError> {
        self.engine.tensors().get(at).cloned().ok_or_else(|| no_tensor(at))
    }

    /// Takes the inputs, tells TensorRT their shapes, and makes room for everything. Nothing is put on the stream.
    pub(super) fn prepare(&mut self, inputs: &[(&str, &Tensor)]) -> Result<(), RuntimeError> {
        // A run that was forgotten uses the buffers.
        self.finish()?;
        let engine = self.engine.clone();
        let taken = take_inputs(engine.tensors(), &engine.read_of(inputs)?)?;
        engine.device().bind()?;
        self.set_inputs(engine.tensors(), &taken)?;
        for (at, spec) in engine.tensors().iter().enumerate().filter(|(_, spec)| !spec.is_input) {
            let dims = self.extents(at, &spec.name)?;
            let length = match &dims {
                Some(dims) => byte_length(spec, spec.carried, dims)?,
                None => self.most_bytes(spec)?,
            };
            let slot = self.slot(at)?;
            slot.hold(engine.device(), length)?;
            slot.dims = dims;
        }
        self.set_addresses()
    }

    /// Tells TensorRT where everything lies.
    fn set_addresses(&mut self) -> Result<(), RuntimeError> {
        for (spec, slot) in self.engine.tensors().iter().zip(&self.slots) {
            let context = self.context.pin_mut();
            // SAFETY: the memory holds the tensor in the shape that TensorRT tells, or as many bytes as it can need, and
            // lives until TensorRT is told another address or the session ends, or is borrowed by the run.
            let set = unsafe {
                match slot.dims {
                    Some(_) => context.set_address(&spec.name, slot.address),
                    None => context.set_output(&spec.name, slot.address, slot.length as u64),
                }
            };
            set.map_err(|why| refused(&why))?;
        }
        Ok(())
    }

    /// An output's extents as far as they are known before a run; none if the data tell.
    fn extents(&mut self, at: usize, name: &str) -> Result<Option<Vec<usize>>, RuntimeError> {
        let dims = self.context.pin_mut().shape(name).map_err(|why| refused(&why))?;
        let dims: Option<Vec<usize>> = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
        let slot = self.slot(at)?;
        slot.by_data |= dims.is_none();
        Ok(dims.filter(|_| !slot.by_data))
    }

    fn most_bytes(&self, spec: &TensorSpec) -> Result<usize, RuntimeError> {
        let most = self.context.most_bytes(&spec.name).map_err(|why| refused(&why))?;
        usize::try_from(most).map_err(|_| RuntimeError::Tensor {
            name: spec.name.clone(),
            reason: "its shape depends on the data, and TensorRT knows no bound of it".to_owned(),
        })
    }

    fn slot(&mut self, at: usize) -> Result<&mut Slot, RuntimeError> {
        self.slots.get_mut(at).ok_or_else(|| no_tensor(at))
    }

    fn set_inputs(&mut self, specs: &[TensorSpec], taken: &[Taken<'_>]) -> Result<(), RuntimeError> {
        let engine = self.engine.clone();
        for (at, tensor) in taken {
            let Some(spec) = specs.get(*at) else { continue };
            let slot = self.slot(*at)?;
            slot.hold(engine.device(), byte_length(spec, spec.carried, tensor.dims())?)?;
            slot.dims = Some(tensor.dims().to_vec());
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
                let address = self.slot(*at)?.address;
                // SAFETY: shapes follow from these values, so that TensorRT reads them from now on; see `set_addresses`.
                let set = unsafe { self.context.pin_mut().set_address(&spec.name, address) };
                set.map_err(|why| refused(&why))?;
            }
        }
        Ok(())
    }

    /// Puts the copies of all inputs on the stream.
    pub(super) fn upload(&mut self) -> Result<(), RuntimeError> {
        self.busy = true;
        for (spec, slot) in self.engine.tensors().iter().zip(&self.slots) {
            if let Some(device) = slot.device.as_ref().filter(|_| spec.is_input) {
                // SAFETY: the stream is synchronized before either is touched again: see `finish`.
                unsafe { self.stream.upload(device, &slot.host, slot.length)? };
            }
        }
        Ok(())
    }

    /// Puts the engine's work on the stream, as a graph if one is wanted.
    pub(super) fn enqueue(&mut self) -> Result<(), RuntimeError> {
        self.enqueue_with(Self::enqueue_in)
    }

    /// Puts the engine's work on the stream, layer by layer.
    pub(super) fn enqueue_measured(&mut self) -> Result<(), RuntimeError> {
        // TensorRT may take other shapes now, from under the graph.
        self.graph = None;
        self.enqueue_with(|session, _| session.enqueue_plainly())
    }

    /// Calls `enqueue` with where temporaries lie, or 0 for the context's own.
    fn enqueue_with(
        &mut self,
        enqueue: impl FnOnce(&mut Self, usize) -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        self.busy = true;
        let wants_graph = self.options.cuda_graph && self.graph_refusal.is_none();
        if let Some(at) = self.slots.iter().position(|slot| slot.dims.is_none()).filter(|_| wants_graph) {
            let name = self.spec(at)?.name;
            self.graph_refusal = Some(format!("the data tell the shape of '{name}', which TensorRT waits for"));
        }
        let Some(memory) = self.options.memory.clone() else { return enqueue(self, 0) };
        let block = memory.lock();
        self.stream.wait(&block.last)?;
        let address = block.buffer.address();
        // SAFETY: the block is as large as the engine needs, and work of other sessions in it has ended when the stream
        // gets here. It is replaced only when the work put on the stream below has ended.
        let set = unsafe { self.context.pin_mut().set_memory(address, block.buffer.length() as u64) };
        set.map_err(|why| refused(&why))?;
        let enqueued = enqueue(self, address);
        self.stream.record(&block.last)?;
        enqueued
    }

    fn enqueue_in(&mut self, memory: usize) -> Result<(), RuntimeError> {
        if !self.options.cuda_graph || self.graph_refusal.is_some() {
            return self.enqueue_plainly();
        }
        let specs = self.engine.tensors().iter().zip(&self.slots);
        let host_inputs = specs.filter(|(spec, _)| spec.on_host && spec.is_input);
        let layout = Layout {
            tensors: self.slots.iter().map(|slot| (slot.address, slot.dims.clone())).collect(),
            memory,
            host_inputs: host_inputs
                .map(|(_, slot)| slot.host.bytes().get(..slot.length).unwrap_or_default().to_vec())
                .collect(),
        };
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
        // SAFETY: the stream and all memory live as long as the session, which synchronizes before it touches either, or are
        // borrowed by a run that waits for its end.
        unsafe { self.context.pin_mut().enqueue(stream) }.map_err(|why| refused(&why))
    }

    /// Puts the copies of all outputs on the stream.
    pub(super) fn download(&mut self) -> Result<(), RuntimeError> {
        let engine = self.engine.clone();
        for (at, spec) in engine.tensors().iter().enumerate().filter(|(_, spec)| !spec.is_input) {
            if self.slot(at)?.dims.is_none() {
                // TensorRT has waited for the data by now.
                let told = self.context.told_shape(&spec.name).map_err(|why| refused(&why))?;
                let dims: Option<Vec<usize>> = told.iter().map(|dim| usize::try_from(*dim).ok()).collect();
                let dims = dims.ok_or_else(|| RuntimeError::Tensor {
                    name: spec.name.clone(),
                    reason: format!("TensorRT tells its shape {told:?}"),
                })?;
                let slot = self.slot(at)?;
                slot.length = byte_length(spec, spec.carried, &dims)?.min(slot.length);
                slot.dims = Some(dims);
            }
        }
        for (spec, slot) in engine.tensors().iter().zip(&mut self.slots) {
            if let Some(device) = slot.device.as_ref().filter(|_| !spec.is_input) {
                // SAFETY: as in `upload`.
                unsafe { self.stream.download(&mut slot.host, device, slot.length)? };
            }
        }
        Ok(())
    }

    /// Waits until nothing on the stream uses the buffers.
    pub(super) fn finish(&mut self) -> Result<(), RuntimeError> {
        if !self.busy {
            return Ok(());
        }
        self.stream.synchronize()?;
        self.busy = false;
        Ok(())
    }

    /// The context, to be asked of its layers.
    pub(super) fn context(&mut self) -> std::pin::Pin<&mut bridge::Context> {
        self.context.pin_mut()
    }

    /// The outputs as they lie on the host.
    fn outputs(&self) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let mut outputs = Vec::new();
        for (spec, slot) in self.engine.tensors().iter().zip(&self.slots).filter(|(spec, _)| !spec.is_input) {
            let bytes = slot.host.bytes().get(..slot.length).unwrap_or_default();
            let fail = |why: TensorError| RuntimeError::Tensor { name: spec.name.clone(), reason: why.to_string() };
            let dims = slot.dims.clone().unwrap_or_default();
            let tensor = Tensor::new(spec.carried, &dims, Bytes::copy_from_slice(bytes)).map_err(fail)?;
            outputs.push((spec.name.clone(), spec.give(tensor)?));
        }
        Ok(outputs)
    }
}

fn byte_length(spec: &TensorSpec, dtype: DType, dims: &[usize]) -> Result<usize, RuntimeError> {
    numel(dims).and_then(|count| dtype.byte_len(count)).ok_or_else(|| RuntimeError::Tensor {
        name: spec.name.clone(),
        reason: format!("its shape {dims:?} is too large"),
    })
}

fn no_tensor(at: usize) -> RuntimeError {
    RuntimeError::TensorRt { message: format!("the engine has no tensor {at}") }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Memory must not go while the stream uses it.
        let _ = self.stream.synchronize();
        self.graph = None;
        self.engine.end(&mut self.context);
    }
}
