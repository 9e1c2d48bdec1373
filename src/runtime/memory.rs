//! Memory of the GPU that users hold: tensors, and temporaries that sessions share.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use trt_fuse_ir::{DType, Tensor, numel};

use super::cuda::{Device, DeviceBuffer, Event};
use super::error::RuntimeError;

/// A tensor in memory of the GPU, in an element type of TensorRT: that of [`TensorSpec::carried`](super::TensorSpec).
pub struct DeviceTensor {
    pub(super) buffer: DeviceBuffer,
    dtype: DType,
    dims: Vec<usize>,
}

impl fmt::Debug for DeviceTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?} on {:?}", self.dtype, self.dims, self.buffer.device())
    }
}

impl DeviceTensor {
    /// A tensor of zeros.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn zeros(device: &Arc<Device>, dtype: DType, dims: &[usize]) -> Result<Self, RuntimeError> {
        let length = numel(dims).and_then(|count| dtype.byte_len(count)).ok_or_else(|| RuntimeError::Tensor {
            name: format!("{dtype}{dims:?}"),
            reason: "it is too large".to_owned(),
        })?;
        let mut buffer = DeviceBuffer::new(device, length)?;
        buffer.fill(&vec![0; length])?;
        Ok(Self { buffer, dtype, dims: dims.to_vec() })
    }

    /// A copy of a tensor.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn upload(device: &Arc<Device>, tensor: &Tensor) -> Result<Self, RuntimeError> {
        let mut buffer = DeviceBuffer::new(device, tensor.byte_len())?;
        match tensor.splat_element() {
            Some(element) => {
                let count = tensor.byte_len() / element.len().max(1);
                buffer.fill(&element.repeat(count))?;
            }
            None => buffer.fill(tensor.bytes())?,
        }
        Ok(Self { buffer, dtype: tensor.dtype(), dims: tensor.dims().to_vec() })
    }

    /// A copy on the host.
    ///
    /// # Errors
    /// If the CUDA driver fails.
    pub fn download(&self) -> Result<Tensor, RuntimeError> {
        let fail = |reason: String| RuntimeError::Tensor { name: format!("{}{:?}", self.dtype, self.dims), reason };
        let length = numel(&self.dims).and_then(|count| self.dtype.byte_len(count));
        let mut bytes = vec![0; length.ok_or_else(|| fail("it is too large".to_owned()))?];
        self.buffer.read(&mut bytes)?;
        Tensor::new(self.dtype, &self.dims, Bytes::from(bytes)).map_err(|why| fail(why.to_string()))
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The extents.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }
}

/// Memory for temporaries that several sessions use one after the other on the GPU: as much as the largest needs, where
/// each would have its own. Their runs wait for each other there; the host waits with
/// them only where a graph is captured, layers are timed, or the data tell a shape.
pub struct SharedMemory {
    device: Arc<Device>,
    block: Mutex<Block>,
}

/// The memory, and what used it last.
pub(super) struct Block {
    pub(super) buffer: DeviceBuffer,
    pub(super) last: Event,
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes on {:?}", self.length(), self.device)
    }
}

impl SharedMemory {
    /// Memory on a GPU, none of it yet.
    ///
    /// # Errors
    /// If the CUDA driver fails.
    pub fn new(device: &Arc<Device>) -> Result<Arc<Self>, RuntimeError> {
        let block = Block { buffer: DeviceBuffer::new(device, 0)?, last: Event::new(device)? };
        Ok(Arc::new(Self { device: device.clone(), block: Mutex::new(block) }))
    }

    /// Bytes held.
    pub fn length(&self) -> usize {
        self.lock().buffer.length()
    }

    /// Makes room for a session's temporaries.
    pub(super) fn hold(&self, length: usize) -> Result<(), RuntimeError> {
        let mut block = self.lock();
        if block.buffer.length() < length {
            // What runs still uses the old memory.
            block.last.synchronize()?;
            block.buffer = DeviceBuffer::new(&self.device, length)?;
        }
        Ok(())
    }

    /// Whoever has it may put work on a stream that uses the memory.
    pub(super) fn lock(&self) -> MutexGuard<'_, Block> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The GPU.
    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }
}
