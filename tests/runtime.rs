//! Engines at work. What needs a GPU says why it is skipped without one; on a machine with a GPU and TensorRT,
//! `cargo test --test runtime -- --nocapture` runs all of it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use trt_fuse::ir::eval::eval_graph;
use trt_fuse::ir::{Graph, Tensor};
use trt_fuse::runtime::{Device, Engine, RuntimeError, SessionOptions};
use trt_fuse::tensorrt::{ComputeCapability, Flavour, Library, PlanError, PlanHeader, Search};
use trt_fuse::{Options, VerifyOptions, build, verify_engine};

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
        Ok(library) if library.version().flavour == Flavour::TensorRtRtx || Device::open(0).is_ok() => Some(library),
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

fn options(library: &Library) -> Options {
    let mut options = Options { ranges: vec!["n=1:2:8".parse().unwrap()], ..Options::default() };
    options.capabilities = Some(library.capabilities());
    if library.version().flavour == Flavour::TensorRtRtx {
        options.build.compute_capabilities = vec![ComputeCapability { major: 8, minor: 6 }];
    }
    options
}

/// The engine on this machine's GPU.
fn engine() -> Option<(Library, Arc<Engine>)> {
    let library = library()?;
    let device = match Device::open(0) {
        Ok(device) => device,
        Err(why) => {
            println!("skipped: {why}");
            return None;
        }
    };
    let mut options = options(&library);
    if library.version().flavour == Flavour::TensorRtRtx {
        options.build.compute_capabilities = vec![device.capability()];
    }
    let plan = build(&graph(), &library, &options, None).unwrap().plan;
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
    assert!(matches!(error, RuntimeError::File { .. }), "{error}");

    if let Err(why) = Device::open(0) {
        std::fs::write(&path, &file).unwrap();
        assert_eq!(Engine::open(&library, 0, &path).unwrap_err().to_string(), why.to_string());
    }
}

/// Every command that needs a GPU ends with one line where there is none.
#[test]
fn commands_say_in_one_line_that_there_is_no_gpu() {
    if Device::open(0).is_ok() {
        println!("skipped: this machine has a GPU");
        return;
    }
    for arguments in [["verify", "model.onnx"], ["bench", "model.onnx"]] {
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
        let mut session = engine.session(SessionOptions { cuda_graph }).unwrap();
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
    let run = |session: &mut trt_fuse::runtime::Session, seed: usize| {
        let (x, i) = inputs(1 + seed % 8, seed as f32 / 16.0);
        session.run(&[("x", &x), ("i", &i)]).unwrap()
    };
    let mut session = engine.session(SessionOptions::default()).unwrap();
    let serial: Vec<_> = (0..64).map(|seed| run(&mut session, seed)).collect();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (engine, serial) = (engine.clone(), &serial);
            scope.spawn(move || {
                let mut session = engine.session(SessionOptions { cuda_graph: thread % 2 == 1 }).unwrap();
                for at in 0..500 {
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
