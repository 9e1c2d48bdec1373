//! Engines at work. What needs a GPU says why it is skipped without one; on a machine with a GPU and TensorRT,
//! `cargo test --test runtime -- --nocapture` runs all of it.

use std::mem::forget;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Once};

use trt_fuse::ir::eval::eval_graph;
use trt_fuse::ir::{Builder, DType, Graph, InputValues, Tensor};
use trt_fuse::runtime::{
    BenchOptions, Device, DeviceTensor, Engine, RuntimeError, Session, SessionOptions, SharedMemory,
};
use trt_fuse::tensorrt::{ComputeCapability, Flavour, Library, PlanError, PlanHeader, Search, TrtNetwork};
use trt_fuse::{Options, Range, VerifyOptions, build, verify_engine};

const MODEL: &str = "graph g(%x: f32[n, 4], %i: i64[2]) -> (%y, %j) {
    %w = constant() value=f32[4, 4] {0.5, -1.0, 2.0, 0.0, 1.0, 1.0, -0.5, 0.25, 0.0, 3.0, 1.0, -2.0, 0.5, 0.5, 0.5, 0.5}
    %1 = matmul(%x, %w) transpose_a=false transpose_b=false
    %y = relu(%1)
    %j = add(%i, %i)
}";

fn graph() -> Graph {
    MODEL.parse().unwrap()
}

/// A library that builds here.
fn library() -> Option<Library> {
    match Search::usual(None).open() {
        Ok(library) if library.version().flavour == Flavour::TensorRtRtx => Some(library),
        Ok(library) if Device::open(0).is_ok() => {
            // TensorRT loads its kernels with the first builder of a process, and forgets them with the last.
            static KEPT: Once = Once::new();
            KEPT.call_once(|| forget(TrtNetwork::new(&library)));
            Some(library)
        }
        Ok(library) => {
            println!("skipped: {library:?} does not build without a GPU");
            None
        }
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}

/// Up to so many rows, and integers that i32 holds twice.
fn ranges(rows: i64) -> Vec<Range> {
    vec![Range { symbol: "n".to_owned(), min: 1, opt: 2, max: rows }, "i[]=-1000:0:1000".parse().unwrap()]
}

fn options(library: &Library) -> Options {
    let mut options = Options { ranges: ranges(8), ..Options::default() };
    options.capabilities = Some(library.capabilities());
    if library.version().flavour == Flavour::TensorRtRtx {
        let there_is_none = ComputeCapability { major: 8, minor: 6 };
        options.build.compute_capabilities = vec![Device::open(0).map_or(there_is_none, |device| device.capability())];
    }
    options
}

/// This machine's GPU.
fn gpu() -> Option<Arc<Device>> {
    Device::open(0).inspect_err(|why| println!("skipped: {why}")).ok()
}

/// The engine on this machine's GPU.
fn engine() -> Option<(Library, Arc<Engine>)> {
    let library = library()?;
    gpu()?;
    let plan = build(&graph(), &library, &options(&library), None).unwrap().plan;
    let engine = Engine::from_plan(&library, 0, &plan).unwrap();
    Some((library, engine))
}

fn inputs(rows: usize, first: f32) -> (Tensor, Tensor) {
    let numbers = (0..rows * 4).map(|at| first + at as f32 / 8.0).collect();
    (Tensor::from_vec([rows, 4], numbers).unwrap(), Tensor::vector(vec![3_i64, -4]))
}

#[test]
fn a_plan_is_checked_before_a_gpu_is_looked_for() {
    let Some(library) = library() else { return };
    let plan = build(&graph(), &library, &options(&library), None).unwrap().plan;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.plan");
    plan.save(&path).unwrap();
    let file = std::fs::read(&path).unwrap();

    let (header, _) = PlanHeader::read(&file).unwrap();
    assert_eq!(header.tensorrt, library.version().to_string());
    assert_eq!((header.types["i"].as_str(), header.types["y"].as_str()), ("i64", "f32"));

    std::fs::write(&path, &file[..file.len() - 1]).unwrap();
    let error = Engine::open(&library, 0, &path).unwrap_err();
    assert!(matches!(error, RuntimeError::Plan(PlanError::Length { .. })), "{error}");

    let text = String::from_utf8_lossy(&file[..200]).into_owned();
    let at = text.find("\"TensorRT").unwrap();
    let mut other = file.clone();
    other[at + 1] = b'X';
    std::fs::write(&path, &other).unwrap();
    let error = Engine::open(&library, 0, &path).unwrap_err();
    assert!(matches!(error, RuntimeError::OtherTensorRt { .. }), "{error}");

    let error = Engine::open(&library, 0, Path::new("/nowhere.plan")).unwrap_err();
    assert!(matches!(error, RuntimeError::Plan(PlanError::File { .. })), "{error}");

    if let Err(why) = Device::open(0) {
        std::fs::write(&path, &file).unwrap();
        assert_eq!(Engine::open(&library, 0, &path).unwrap_err().to_string(), why.to_string());
    }
}

/// What was known beforehand is no input of the engine, and yet what runs are given is checked.
#[test]
fn fixed_values_are_checked() {
    let Some(library) = library() else { return };
    let text = "graph g(%x: f32[n, 4], %axes: i64[2], %mask: bool[n, 2]) -> (%y) { %y = relu(%x) }";
    let plain: Graph = text.parse().unwrap();
    let mut builder = Builder::like(&plain);
    let inputs: Vec<_> = plain
        .inputs()
        .iter()
        .filter_map(|id| plain.value((*id).into()))
        .map(|value| (value.name.clone(), value.info.clone()))
        .collect();
    let inputs: Vec<_> = inputs.into_iter().map(|(name, info)| Some(builder.input(name, info))).collect();
    builder.copy(&plain, &inputs).unwrap();
    builder.fix("axes", InputValues::Each(vec![0, -1]));
    builder.fix("mask", InputValues::All(1));
    let mut options = Options { ranges: vec!["n=1:2:8".parse().unwrap()], ..options(&library) };
    options.ranges.extend(["axes[0]=0", "axes[1]=-1", "mask[]=1"].map(|range| range.parse().unwrap()));
    let plan = build(&builder.finish(), &library, &options, None).unwrap().plan;
    assert_eq!(plan.header().values["axes"], (vec![0, -1], vec![0, -1]));
    assert_eq!(plan.header().bounds["mask"], (1, 1));

    let Some(_) = gpu() else { return };
    let engine = Engine::from_plan(&library, 0, &plan).unwrap();
    let x = Tensor::from_vec([2, 4], vec![1.0_f32; 8]).unwrap();
    let (axes, mask) = (Tensor::vector(vec![0_i64, -1]), Tensor::full([2, 2], true).unwrap());
    let mut session = engine.session(SessionOptions::default()).unwrap();
    assert_eq!(session.run(&[("x", &x), ("axes", &axes), ("mask", &mask)]).unwrap()[0].1, x);
    assert_eq!(session.run(&[("x", &x)]).unwrap()[0].1, x);
    let mut refusal = |name: &str, tensor: Tensor| session.run(&[("x", &x), (name, &tensor)]).unwrap_err().to_string();
    let axes = refusal("axes", Tensor::vector(vec![0_i64, 1]));
    assert_eq!(axes, "'axes' is [0, 1]; the engine was built for values [0, -1]");
    let mask = refusal("mask", Tensor::full([2, 2], false).unwrap());
    assert_eq!(mask, "'mask' has an element 0; the engine was built for 1 to 1");
    assert_eq!(refusal("mask", Tensor::full([2, 2], 1_f32).unwrap()), "'mask' is f32, bool is wanted");
    assert_eq!(refusal("mask", Tensor::full([2], true).unwrap()), "'mask' has shape [2], [n, 2] is wanted");
}

/// Every command that needs a GPU ends with one line where there is none.
#[test]
fn commands_say_in_one_line_that_there_is_no_gpu() {
    if Device::open(0).is_ok() {
        println!("skipped: this machine has a GPU");
        return;
    }
    for arguments in [["verify", "model.onnx"], ["bench", "model.onnx"], ["compare", "model.onnx"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_trt-fuse")).args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{stderr}");
        assert!(stderr.contains("driver") || stderr.contains("GPU") || stderr.contains("cuInit"), "{stderr}");
    }
}

#[test]
fn outputs_are_the_evaluators_for_every_shape_with_and_without_graphs() {
    let Some((_library, engine)) = engine() else { return };
    for cuda_graph in [false, true] {
        let mut session = engine.session(SessionOptions { cuda_graph, memory: None }).unwrap();
        for rows in [2, 8, 1, 8] {
            let (x, i) = inputs(rows, -1.0);
            let found = session.run(&[("i", &i), ("x", &x)]).unwrap();
            let expected = eval_graph(&graph(), &[x, i]).unwrap();
            let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            for (name, expected) in ["y", "j"].into_iter().zip(expected) {
                let at = names.iter().position(|found| *found == name).unwrap();
                // Every product and sum here is exact.
                assert_eq!(found[at].1, expected, "{name} of {rows} rows, graph {cuda_graph}");
            }
        }
        assert_eq!(session.graph_refusal(), None);
    }
}

#[test]
fn a_session_outlives_bad_inputs() {
    let Some((_library, engine)) = engine() else { return };
    let mut session = engine.session(SessionOptions::default()).unwrap();
    let (x, i) = inputs(2, 0.0);
    let expected = session.run(&[("x", &x), ("i", &i)]).unwrap();
    let (large, _) = inputs(9, 0.0);
    assert!(matches!(session.run(&[("x", &large), ("i", &i)]), Err(RuntimeError::Shape { .. })));
    assert!(matches!(session.run(&[("x", &x)]), Err(RuntimeError::Times { times: 0, .. })));
    assert!(matches!(session.run(&[("x", &i), ("i", &i)]), Err(RuntimeError::DType { .. })));
    assert_eq!(session.run(&[("x", &x), ("i", &i)]).unwrap(), expected);
}

#[test]
fn threads_with_sessions_of_their_own_give_the_same_bits() {
    let Some((_library, engine)) = engine() else { return };
    let run = |session: &mut Session, seed: usize| {
        let (x, i) = inputs(1 + seed % 8, seed as f32 / 16.0);
        session.run(&[("x", &x), ("i", &i)]).unwrap()
    };
    let mut session = engine.session(SessionOptions::default()).unwrap();
    let serial: Vec<_> = (0..64).map(|seed| run(&mut session, seed)).collect();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (engine, serial) = (engine.clone(), &serial);
            scope.spawn(move || {
                let mut session = engine.session(SessionOptions { cuda_graph: thread % 2 == 1, memory: None }).unwrap();
                for at in 0..1_250 {
                    let seed = (at * 7 + thread) % serial.len();
                    assert_eq!(run(&mut session, seed), serial[seed]);
                }
            });
        }
    });
}

#[test]
fn an_engine_is_verified_at_the_ends_of_its_ranges() {
    let Some((library, engine)) = engine() else { return };
    let options = options(&library);
    let compared = verify_engine(&engine, &graph(), &options, &VerifyOptions::default()).unwrap();
    assert!(compared.iter().all(|compared| compared.fits), "{compared:?}");
    let at: Vec<&str> = compared.iter().map(|compared| compared.at).collect();
    assert_eq!(at, ["min", "min", "opt", "opt", "max", "max"]);
    // Another model's weights are noticed.
    let other: Graph = MODEL.replace("0.5, -1.0, 2.0", "0.5, -1.5, 2.0").parse().unwrap();
    let compared = verify_engine(&engine, &other, &options, &VerifyOptions::default()).unwrap();
    assert!(compared.iter().any(|compared| !compared.fits && compared.name == "y"), "{compared:?}");
}

#[test]
fn a_run_goes_on_while_the_host_does_something_else() {
    let Some((_library, engine)) = engine() else { return };
    let mut session = engine.session(SessionOptions::default()).unwrap();
    let (x, i) = inputs(3, 1.0);
    let expected = session.run(&[("x", &x), ("i", &i)]).unwrap();
    let running = session.run_async(&[("x", &x), ("i", &i)]).unwrap();
    assert_eq!(running.wait().unwrap(), expected);
    // Neither a run that is dropped nor one that is forgotten is in the way of the next.
    let (other, _) = inputs(8, -3.0);
    drop(session.run_async(&[("x", &other), ("i", &i)]).unwrap());
    forget(session.run_async(&[("x", &other), ("i", &i)]).unwrap());
    assert_eq!(session.run(&[("x", &x), ("i", &i)]).unwrap(), expected);
}

#[test]
fn tensors_stay_on_the_gpu_from_one_run_to_the_next() {
    // Integers that the engine narrows are checked in host memory.
    let graph: Graph =
        MODEL.replace(", %i: i64[2]", "").replace(", %j", "").replace("%j = add(%i, %i)", "").parse().unwrap();
    let Some((library, engine)) = engine() else { return };
    let narrowed = engine.tensors().iter().find(|spec| spec.bounds.is_some()).map(|spec| spec.name.clone());
    let device = engine.device().clone();
    let zeros = |dims: &[usize]| DeviceTensor::zeros(&device, DType::F32, dims).unwrap();
    if let Some(name) = narrowed {
        let (x, i) = (zeros(&[4, 4]), DeviceTensor::zeros(&device, DType::I32, &[2]).unwrap());
        let mut session = engine.session(SessionOptions::default()).unwrap();
        let error = session.run_on_device(&[("x", &x), ("i", &i)], &mut []).unwrap_err();
        assert!(matches!(&error, RuntimeError::Tensor { name: refused, .. } if *refused == name), "{error}");
    }
    let plan =
        build(&graph, &library, &Options { ranges: ranges(8)[..1].to_vec(), ..options(&library) }, None).unwrap().plan;
    let engine = Engine::from_plan(&library, 0, &plan).unwrap();
    for cuda_graph in [false, true] {
        let mut session = engine.session(SessionOptions { cuda_graph, memory: None }).unwrap();
        let (x, _) = inputs(4, -1.0);
        let (mut y, mut last) = (zeros(&[4, 4]), zeros(&[4, 4]));
        let first = DeviceTensor::upload(&device, &x).unwrap();
        session.run_on_device(&[("x", &first)], &mut [("y", &mut y)]).unwrap();
        session.run_on_device(&[("x", &y)], &mut [("y", &mut last)]).unwrap();
        let once = eval_graph(&graph, std::slice::from_ref(&x)).unwrap()[0].clone();
        let twice = eval_graph(&graph, std::slice::from_ref(&once)).unwrap()[0].clone();
        assert_eq!(y.download().unwrap(), once);
        assert_eq!(last.download().unwrap(), twice);

        let mut small = zeros(&[2, 4]);
        let error = session.run_on_device(&[("x", &first)], &mut [("y", &mut small)]);
        assert!(matches!(error, Err(RuntimeError::Shape { .. })), "{error:?}");
        let halves = DeviceTensor::zeros(&device, DType::F16, &[4, 4]).unwrap();
        let error = session.run_on_device(&[("x", &halves)], &mut [("y", &mut y)]);
        assert!(matches!(error, Err(RuntimeError::DType { .. })), "{error:?}");
        let error = session.run_on_device(&[("x", &first)], &mut []);
        assert!(matches!(error, Err(RuntimeError::Times { side: "output", .. })), "{error:?}");
        // The session's own memory is used again.
        assert_eq!(session.run(&[("x", &x)]).unwrap()[0].1, once);
    }
}

#[test]
fn sessions_share_memory_for_temporaries() {
    let Some((_library, engine)) = engine() else { return };
    let memory = SharedMemory::new(engine.device()).unwrap();
    let mut own = engine.session(SessionOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (x, i) = inputs(1 + thread, thread as f32);
            let expected = own.run(&[("x", &x), ("i", &i)]).unwrap();
            let (engine, memory) = (engine.clone(), memory.clone());
            scope.spawn(move || {
                let options = SessionOptions { cuda_graph: thread % 2 == 0, memory: Some(memory) };
                let mut session = engine.session(options).unwrap();
                for _ in 0..200 {
                    assert_eq!(session.run(&[("x", &x), ("i", &i)]).unwrap(), expected);
                }
            });
        }
    });
    assert!(memory.length() >= engine.memory());
}

#[test]
fn outputs_whose_shape_the_data_tell_are_taken() {
    let Some(library) = library() else { return };
    if !library.capabilities().non_zero || Device::open(0).is_err() {
        println!("skipped: {library:?} builds no such engine here");
        return;
    }
    let graph: Graph = "graph g(%x: f32[2, 3]) -> (%y, %z) { %y = nonzero(%x) %z = relu(%x) }".parse().unwrap();
    let plan = build(&graph, &library, &Options::default(), None).unwrap().plan;
    let engine = Engine::from_plan(&library, 0, &plan).unwrap();
    let mut session = engine.session(SessionOptions { cuda_graph: true, memory: None }).unwrap();
    for data in [[0.0_f32, 1.0, 0.0, -2.0, 0.0, 3.0], [0.0; 6], [1.0; 6]] {
        let x = Tensor::from_vec([2, 3], data.to_vec()).unwrap();
        let found = session.run(&[("x", &x)]).unwrap();
        let expected = eval_graph(&graph, &[x]).unwrap();
        for (name, expected) in ["y", "z"].into_iter().zip(expected) {
            assert_eq!(found.iter().find(|(found, _)| found == name).unwrap().1, expected, "{name} of {data:?}");
        }
    }
    assert!(session.graph_refusal().is_some_and(|why| why.contains("'y'")), "{:?}", session.graph_refusal());
}

#[test]
fn layers_are_measured_by_name() {
    let Some((_library, engine)) = engine() else { return };
    let mut session = engine.session(SessionOptions::default()).unwrap();
    let (x, i) = inputs(8, 1.0);
    let layers = session.profile(&[("x", &x), ("i", &i)], 10).unwrap();
    assert!(!layers.is_empty() && layers.iter().all(|layer| layer.ms >= 0.0 && !layer.layer.is_empty()), "{layers:?}");
    let how = BenchOptions {
        iterations: 20,
        warm_up: Default::default(),
        duration: Default::default(),
        ..Default::default()
    };
    let measured = session.measure(&[("x", &x), ("i", &i)], &how).unwrap();
    assert!(measured.runs == 20 && measured.compute.min > 0.0, "{measured:?}");
}

#[test]
fn more_memory_than_there_is_is_an_error() {
    let Ok(device) = Device::open(0) else {
        println!("skipped: no GPU");
        return;
    };
    let (_, all) = device.memory().unwrap();
    let error = DeviceTensor::zeros(&device, DType::U8, &[all + 1]).unwrap_err();
    assert!(error.to_string().contains("out of memory"), "{error}");
    DeviceTensor::zeros(&device, DType::U8, &[1 << 20]).unwrap();
}

#[test]
fn builds_take_from_the_caches() {
    let Some(library) = library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&library);
    options.engine_cache = Some(folder.path().join("engines"));
    options.build.timing_cache = Some(folder.path().join("times"));
    let built = build(&graph(), &library, &options, None).unwrap();
    let again = build(&graph(), &library, &options, None).unwrap();
    assert_eq!((built.cached, again.cached), (false, true));
    assert_eq!(built.plan.bytes(), again.plan.bytes());
    assert_eq!((built.layers, &built.notes), (again.layers, &again.notes));
    // Another weight, another option: another engine.
    let other: Graph = MODEL.replace("0.5, -1.0, 2.0", "0.5, -1.5, 2.0").parse().unwrap();
    assert!(!build(&other, &library, &options, None).unwrap().cached);
    let mut larger = options.clone();
    larger.ranges = ranges(16);
    assert!(!build(&graph(), &library, &larger, None).unwrap().cached);

    // The same network for other types of the model.
    let typed = |dtype: &str| -> Graph {
        format!("graph g(%x: {dtype}[4]) -> (%y) {{ %z = cast(%x) to=f32 %y = relu(%z) }}").parse().unwrap()
    };
    for dtype in ["u16", "i32", "i16"] {
        let built = build(&typed(dtype), &library, &Options { ranges: Vec::new(), ..options.clone() }, None).unwrap();
        assert_eq!((built.cached, built.plan.header().types["x"].as_str()), (false, dtype));
    }

    // Broken files are told of, and replaced.
    for entry in std::fs::read_dir(folder.path().join("engines")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"broken").unwrap();
    }
    let times = library.version().flavour == Flavour::TensorRt;
    assert_eq!(folder.path().join("times").exists(), times);
    if times {
        std::fs::write(folder.path().join("times"), b"broken").unwrap();
    }
    let built = build(&graph(), &library, &options, None).unwrap();
    let told: Vec<String> = built.notes.iter().map(ToString::to_string).filter(|note| note.contains("cache")).collect();
    assert_eq!((built.cached, told.len()), (false, 1 + usize::from(times)), "{told:?}");
    assert!(build(&graph(), &library, &options, None).unwrap().cached);
}

/// Kilobytes of this process in memory.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Growth from one measurement to the next by least squares, the first quarter left out.
fn slope(measured: &[f64]) -> f64 {
    let settled = &measured[measured.len() / 4..];
    let count = settled.len() as f64;
    let (middle, mean) = ((count - 1.0) / 2.0, settled.iter().sum::<f64>() / count);
    let (mut above, mut below) = (0.0, 0.0);
    for (at, value) in settled.iter().enumerate() {
        above += (at as f64 - middle) * (value - mean);
        below += (at as f64 - middle).powi(2);
    }
    above / below
}

#[test]
fn memory_does_not_grow_with_builds_and_runs() {
    let Some(library) = library() else { return };
    let device = Device::open(0).ok();
    let options = options(&library);
    let free = || device.as_ref().map_or(0.0, |device| device.memory().unwrap().0 as f64 / 1024.0);
    let (mut host, mut used) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let plan = build(&graph(), &library, &options, None).unwrap().plan;
        if device.is_some() && library.version().flavour == Flavour::TensorRt {
            let engine = Engine::from_plan(&library, 0, &plan).unwrap();
            let mut session = engine.session(SessionOptions::default()).unwrap();
            let (x, i) = inputs(8, 1.0);
            (0..100).for_each(|_| drop(session.run(&[("x", &x), ("i", &i)]).unwrap()));
        }
        host.push(resident());
        used.push(-free());
    }
    println!("{:.0} kB of the host and {:.0} kB of the GPU a build", slope(&host), slope(&used));
    // TensorRT itself loses a little. Memory of the GPU is told only: other programs use it too.
    assert!(slope(&host) < 1024.0, "{host:?}");
}
