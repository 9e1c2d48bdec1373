//! A loaded plan.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cxx::UniquePtr;
use trt_fuse_ir::{Dim, Shape, Tensor};

use super::cuda::Device;
use super::error::RuntimeError;
use super::interface::{TensorSpec, check_elements};
use super::session::{Session, SessionOptions};
use crate::tensorrt::bridge::{self, RawTensorInfo};
use crate::tensorrt::{Library, Plan, PlanHeader, dtype};

/// An engine on a GPU, to be shared by the [`Session`]s that run it.
pub struct Engine {
    inner: UniquePtr<bridge::Engine>,
    /// TensorRT makes or ends one context at a time.
    making: Mutex<()>,
    device: Arc<Device>,
    tensors: Vec<TensorSpec>,
    header: PlanHeader,
}

// SAFETY: TensorRT's engine may be asked from any thread; what is not const goes through `making`.
unsafe impl Send for Engine {}
// SAFETY: as above.
unsafe impl Sync for Engine {}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine of {} layers on {:?}", self.layers(), self.device)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // TensorRT frees memory of the current GPU.
        let _ = self.device.bind();
    }
}

pub(super) fn refused(why: &cxx::Exception) -> RuntimeError {
    RuntimeError::TensorRt { message: why.what().to_owned() }
}

impl Engine {
    /// Loads a plan file for the GPU of a number. Its header is checked before the GPU is looked for, and before TensorRT
    /// sees the rest, which it trusts.
    ///
    /// # Errors
    /// If the file is no plan or not whole, another TensorRT built it, there is no such GPU or the plan is for others, or
    /// TensorRT refuses it.
    pub fn open(library: &Library, gpu: i32, path: &Path) -> Result<Arc<Self>, RuntimeError> {
        Self::from_plan(library, gpu, &Plan::open(path)?)
    }

    /// Loads a plan that was just built, or read.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn from_plan(library: &Library, gpu: i32, plan: &Plan) -> Result<Arc<Self>, RuntimeError> {
        Self::load(library, gpu, plan.header().clone(), plan.bytes())
    }

    fn load(library: &Library, gpu: i32, header: PlanHeader, engine: &[u8]) -> Result<Arc<Self>, RuntimeError> {
        check_tensorrt(&header, &library.version().to_string())?;
        let device = Device::open(gpu)?;
        check_gpu(&header, &device.capability().to_string())?;
        device.bind()?;
        let inner = library.inner.load_engine(engine).map_err(|why| refused(&why))?;
        let raw = inner.tensors().map_err(|why| refused(&why))?;
        let tensors = raw.into_iter().map(|raw| spec(raw, &header)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { inner, making: Mutex::new(()), device, tensors, header }))
    }

    /// A session of its own memory and stream.
    ///
    /// # Errors
    /// If TensorRT or the CUDA driver refuse, as for lack of device memory.
    pub fn session(self: &Arc<Self>, options: SessionOptions) -> Result<Session, RuntimeError> {
        Session::new(self.clone(), options)
    }

    /// A context, with memory for temporaries of its own or with none yet.
    pub(super) fn context(&self, with_memory: bool) -> Result<UniquePtr<bridge::Context>, RuntimeError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        self.device.bind()?;
        self.inner.create_context(with_memory).map_err(|why| refused(&why))
    }

    /// Ends a context: TensorRT 8 gives its profile back to the engine.
    pub(super) fn end(&self, context: &mut UniquePtr<bridge::Context>) {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing can be done about an error here, and the context goes in any case.
        let _ = self.device.bind();
        *context = UniquePtr::null();
    }

    /// The inputs and outputs.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Whether the model has an input that the engine has not.
    fn is_unread(&self, name: &str) -> bool {
        self.header.types.contains_key(name) && !self.tensors.iter().any(|spec| spec.name == name)
    }

    /// Those of the given inputs that the engine reads. Others are of the model's type and shape, and their elements what the
    /// engine was built for, if that was told.
    pub(super) fn read_of<'n, 't>(
        &self,
        given: &[(&'n str, &'t Tensor)],
    ) -> Result<Vec<(&'n str, &'t Tensor)>, RuntimeError> {
        let (unread, read): (Vec<_>, Vec<_>) = given.iter().copied().partition(|(name, _)| self.is_unread(name));
        for (name, tensor) in unread {
            check_unread(&self.header, name, tensor)?;
        }
        Ok(read)
    }

    /// Bytes of temporaries that a session needs on the GPU.
    pub fn memory(&self) -> usize {
        usize::try_from(self.inner.memory_size()).unwrap_or(usize::MAX)
    }

    /// Layers of the engine: kernels and regions of them.
    pub fn layers(&self) -> usize {
        self.inner.layers()
    }

    /// Where the plan comes from.
    pub fn header(&self) -> &PlanHeader {
        &self.header
    }

    /// The GPU.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }
}

fn check_unread(header: &PlanHeader, name: &str, tensor: &Tensor) -> Result<(), RuntimeError> {
    if let Some(expected) = header.dtype(name).filter(|dtype| *dtype != tensor.dtype()) {
        return Err(RuntimeError::DType { name: name.to_owned(), expected, found: tensor.dtype() });
    }
    if let Some(shape) = header.shape(name) {
        let fits = |(dim, extent): (&Dim, &usize)| dim.value().is_none_or(|dim| usize::try_from(dim) == Ok(*extent));
        if shape.len() != tensor.rank() || !shape.iter().zip(tensor.dims()).all(fits) {
            let expected: Vec<String> = shape.iter().map(ToString::to_string).collect();
            let (expected, found) = (format!("[{}]", expected.join(", ")), tensor.dims().to_vec());
            return Err(RuntimeError::Shape { name: name.to_owned(), expected, found });
        }
    }
    check_elements(name, header.values.get(name), header.bounds.get(name).copied(), tensor)
}

fn check_tensorrt(header: &PlanHeader, found: &str) -> Result<(), RuntimeError> {
    if header.tensorrt == found {
        return Ok(());
    }
    Err(RuntimeError::OtherTensorRt { built: header.tensorrt.clone(), found: found.to_owned() })
}

fn check_gpu(header: &PlanHeader, found: &str) -> Result<(), RuntimeError> {
    if header.gpus.is_empty() || header.gpus.iter().any(|built| built == found) {
        return Ok(());
    }
    Err(RuntimeError::OtherGpu { built: header.gpus.join(", "), found: found.to_owned() })
}

fn spec(raw: RawTensorInfo, header: &PlanHeader) -> Result<TensorSpec, RuntimeError> {
    let RawTensorInfo { name, is_input, dtype: code, dims, on_host, mut min, mut opt, mut max } = raw;
    let Some(carried) = dtype::from_code(code) else {
        return Err(RuntimeError::Tensor { name, reason: format!("element type {code} of TensorRT is not known") });
    };
    // An engine of fixed extents has no profile to ask.
    if is_input && !on_host && dims.iter().all(|dim| *dim >= 0) {
        [min, opt, max] = [dims.clone(), dims.clone(), dims.clone()];
    }
    let dtype = header.dtype(&name).unwrap_or(carried);
    let values = header.values.get(&name).filter(|_| is_input).cloned();
    let usual = header.usual.get(&name).filter(|_| is_input).cloned();
    let bounds = header.bounds.get(&name).filter(|_| is_input).copied();
    let is_symbolic = |shape: &Shape| shape.iter().any(|dim| dim.value().is_none());
    let shape = header.shape(&name).filter(|shape| is_input && shape.len() == dims.len() && is_symbolic(shape));
    Ok(TensorSpec { name, is_input, dtype, carried, dims, shape, min, opt, max, on_host, values, usual, bounds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_for_other_targets_are_refused() {
        let header = |gpus: &str| -> PlanHeader {
            let text = format!(
                r#"{{"tensorrt": "TensorRT 8.5.3", "gpus": {gpus}, "model": "", "types": {{}}, "bytes": 0, "hash": ""}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let gpus = |gpus: &str| check_gpu(&header(gpus), "9.0");
        assert!(gpus(r#"["8.6", "9.0"]"#).is_ok() && gpus("[]").is_ok());
        insta::assert_snapshot!(
            gpus(r#"["8.6", "8.9"]"#).unwrap_err(),
            @"the plan was built for compute capability 8.6, 8.9, this GPU has 9.0"
        );
        assert!(check_tensorrt(&header("[]"), "TensorRT 8.5.3").is_ok());
        insta::assert_snapshot!(
            check_tensorrt(&header("[]"), "TensorRT 10.3.0").unwrap_err(),
            @"the plan was built by TensorRT 8.5.3, this is TensorRT 10.3.0: a plan runs on the version that built it"
        );
    }
}
