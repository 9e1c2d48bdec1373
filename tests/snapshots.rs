//! Fused graphs and recorded networks of whole models.

mod common;

use common::optimized;
use trt_fuse::{Options, record};

fn check(name: &str) {
    let graph = optimized(name);
    let (network, _) = record(&graph, &Options::default()).unwrap();
    let (again, _) = record(&optimized(name), &Options::default()).unwrap();
    assert_eq!(network.text(), again.text(), "two runs differ");
    insta::assert_snapshot!(format!("{name}.graph"), graph.to_string());
    insta::assert_snapshot!(format!("{name}.network"), network.text());
}

macro_rules! snapshots {
    ($($test:ident: $name:literal),* $(,)?) => {$(
        #[test]
        fn $test() {
            check($name);
        }
    )*};
}

snapshots! {
    densenet121_raw: "densenet121.raw",
    efficientnet_b0: "efficientnet_b0",
    googlenet_raw: "googlenet.raw",
    inception_v3_dynamo: "inception_v3.dynamo",
    light_densenet121: "light_densenet121",
    light_resnet50: "light_resnet50",
    mobilenet_v2_raw: "mobilenet_v2.raw",
    mobilenet_v3_large_raw: "mobilenet_v3_large.raw",
    resnet50_dyn: "resnet50.dyn",
    resnet50_raw: "resnet50.raw",
    shufflenet_v2: "shufflenet_v2",
    squeezenet1_1: "squeezenet1_1",
}
