//! What the networks for different targets have where only some of them have a layer or a type.

mod common;

use common::{model, packed, rtx_library};
use trt_fuse::{Options, build, optimize, record};
use trt_fuse_ir::{Capabilities, Graph};

/// The recorded network of a graph in text form, or why there is none.
fn network(text: &str, capabilities: Capabilities) -> String {
    let graph: Graph = text.parse().unwrap();
    match record(&graph, &Options { capabilities: Some(capabilities), ..Options::default() }) {
        Ok((network, _)) => network.text().to_string(),
        Err(error) => error.to_string(),
    }
}

const NMS: &str = "graph g(%b: f32[1, 9, 4], %s: f32[1, 2, 9], %o: f32[1]) -> (%y) {
    %m = constant() value=i64[1] {3}
    %y = non_max_suppression(%b, %s, %m, %o) center_point=false
}";

#[test]
fn suppression_is_a_layer_of_tensorrt() {
    insta::assert_snapshot!(network(NMS, Capabilities::tensorrt((10, 14, 0))), @r#"
    %b f32[1,9,4] = input "b" type=f32 dims=[1,9,4]
    %s f32[1,2,9] = input "s" type=f32 dims=[1,2,9]
    %o f32[1] = input "o" type=f32 dims=[1]
    %y::scores_out = shuffle "y::scores" (%s) first_transpose=[0,2,1] ; y
    %y::most_out = constant "y::most" value=i32[]#99176e52e3fff279 ; y
    %y::overlap_out = shuffle "y::overlap" (%o) reshape=[] ; y
    %y::least_out = constant "y::least" value=f32[]#fac119187d9625d6 ; y
    %y i64[y.selected,3], %y_out1 = nms "y" (%b, %y::scores_out, %y::most_out) iou_threshold=%y::overlap_out score_threshold=%y::least_out format=corner_pairs indices=i64
    output "y" (%y) type=i64
    "#);
}

#[test]
fn suppression_has_no_kernel_in_rtx() {
    insta::assert_snapshot!(network(NMS, Capabilities::rtx((1, 7, 1))), @"
    a node is unsupported: 'y' (non_max_suppression): TensorRT-RTX has no kernel for its layer of non-maximum suppression
    ");
}

const ATTENTION: &str =
    "graph g(%q: f16[b, 8, s, 64], %k: f16[b, 2, t, 64], %v: f16[b, 2, t, 64], %m: bool[b, 1, s, t])
    -> (%y) {
    %y = attention(%q, %k, %v, %m) scale=0.125 causal=none zero_hidden=true scores=product
}";

#[test]
fn a_mask_that_may_hide_all_keys_is_guarded() {
    insta::assert_snapshot!(network(ATTENTION, Capabilities::rtx((1, 7, 1))), @r#"
    %q f16[b,8,s,64] = input "q" type=f16 dims=[-1,8,-1,64] symbols=[b,-,s,-]
    %k f16[b,2,t,64] = input "k" type=f16 dims=[-1,2,-1,64] symbols=[b,-,t,-]
    %v f16[b,2,t,64] = input "v" type=f16 dims=[-1,2,-1,64] symbols=[b,-,t,-]
    %m bool[b,1,s,t] = input "m" type=bool dims=[-1,1,-1,-1] symbols=[b,-,s,t]
    %y::scale_out = constant "y::scale" value=f16[1,1,1,1]#d42d5b4ebb187a99 ; y
    %y::scaled_out = elementwise "y::scaled" (%q, %y::scale_out) kind=prod ; y
    %y_out = attention "y" (%y::scaled_out, %k, %v) mask=%m
    %y::kept_out = cast "y::kept" (%m) to=f16 ; y
    %y::most_out = reduce "y::most" (%y::kept_out) kind=max axes=[3] keep_dims=true ; y
    %y::hidden_out = constant "y::hidden" value=f16[1,1,1,1]#9516b9234c0102b2 ; y
    %y::sees_out = elementwise "y::sees" (%y::most_out, %y::hidden_out) kind=greater ; y
    %y::zero_out = constant "y::zero" value=f16[1,1,1,1]#9516b9234c0102b2 ; y
    %y f16[b,8,s,64] = select "y::guarded" (%y::sees_out, %y_out, %y::zero_out) ; y
    output "y" (%y) type=f16
    "#);
}

#[test]
fn attention_is_written_out_for_old_targets() {
    insta::assert_snapshot!(network(ATTENTION, Capabilities::tensorrt((8, 6, 1))), @r#"
    %q f16[b,8,s,64] = input "q" type=f16 dims=[-1,8,-1,64] symbols=[b,-,s,-]
    %k f16[b,2,t,64] = input "k" type=f16 dims=[-1,2,-1,64] symbols=[b,-,t,-]
    %v f16[b,2,t,64] = input "v" type=f16 dims=[-1,2,-1,64] symbols=[b,-,t,-]
    %m bool[b,1,s,t] = input "m" type=bool dims=[-1,1,-1,-1] symbols=[b,-,s,t]
    %y.11 f32[b,1,s,t] = cast "y.11" (%m) to=f32 ; y
    %y.12 f32[b,1,s,1] = reduce "y.12" (%y.11) kind=max axes=[3] keep_dims=true ; y
    %y.lower_attention.3_out = constant "y.lower_attention.3" value=f32[1,1,1,1]#5301f3beba97a046
    %y.13 bool[b,1,s,1] = elementwise "y.13" (%y.12, %y.lower_attention.3_out) kind=greater ; y
    %y.lower_attention_out = constant "y.lower_attention" value=f16[1,1,1,1]#36b5500570bfa743
    %y.1 f16[b,8,s,64] = elementwise "y.1" (%q, %y.lower_attention_out) kind=prod ; y
    %y.lower_attention.1_out = constant "y.lower_attention.1" value=f16[1,1,1,1]#36b5500570bfa743
    %y.2 f16[b,2,t,64] = elementwise "y.2" (%k, %y.lower_attention.1_out) kind=prod ; y
    %y.3::shape_out = shape "y.3::shape" (%q) ; y
    %y.3::b_out = slice "y.3::b" (%y.3::shape_out) start=[0] size=[1] stride=[1] ; y
    %y.3::dims_out = constant "y.3::dims" value=i32[2]#da06f8b2b6644285 ; y
    %y.3::shape.2_out = shape "y.3::shape.2" (%k) ; y
    %y.3::t_out = slice "y.3::t" (%y.3::shape.2_out) start=[2] size=[1] stride=[1] ; y
    %y.3::dim_out = constant "y.3::dim" value=i32[1]#29f015f28b79e4eb ; y
    %y.3::dims.2_out = concatenation "y.3::dims.2" (%y.3::b_out, %y.3::dims_out, %y.3::t_out, %y.3::dim_out) axis=0 ; y
    %y.3 f16[b,2,1,t,64] = shuffle "y.3" (%y.2) reshape=%y.3::dims.2_out ; y
    %y.4::dims_out = constant "y.4::dims" value=i32[2]#1c3038bd2c12f5ad ; y
    %y.4::dims.2_out = concatenation "y.4::dims.2" (%y.3::b_out, %y.4::dims_out, %y.3::t_out, %y.3::dim_out) axis=0 ; y
    %y.4 f16[b,2,4,t,64] = slice "y.4" (%y.3) start=[0,0,0,0,0] size=%y.4::dims.2_out stride=[1,1,0,1,1] ; y
    %y.5::dim_out = constant "y.5::dim" value=i32[1]#d607846504f6c6b3 ; y
    %y.5::dims_out = concatenation "y.5::dims" (%y.3::b_out, %y.5::dim_out, %y.3::t_out, %y.3::dim_out) axis=0 ; y
    %y.5 f16[b,8,t,64] = shuffle "y.5" (%y.4) reshape=%y.5::dims_out ; y
    %y.9 f16[b,8,s,t] = matrix_multiply "y.9" (%y.1, %y.5) op1=transpose ; y
    %y.lower_attention.2_out = constant "y.lower_attention.2" value=f16[1,1,1,1]#4b07abf87f4a403e
    %y.10 f16[b,8,s,t] = select "y.10" (%m, %y.9, %y.lower_attention.2_out) ; y
    %y.14 f16[b,8,s,t] = softmax "y.14" (%y.10) axis=3 ; y
    %y.lower_attention.4_out = constant "y.lower_attention.4" value=f16[1,1,1,1]#9516b9234c0102b2
    %y.15 f16[b,8,s,t] = select "y.15" (%y.13, %y.14, %y.lower_attention.4_out) ; y
    %y.6 f16[b,2,1,t,64] = shuffle "y.6" (%v) reshape=%y.3::dims.2_out ; y
    %y.7 f16[b,2,4,t,64] = slice "y.7" (%y.6) start=[0,0,0,0,0] size=%y.4::dims.2_out stride=[1,1,0,1,1] ; y
    %y.8 f16[b,8,t,64] = shuffle "y.8" (%y.7) reshape=%y.5::dims_out ; y
    %y f16[b,8,s,64] = matrix_multiply "y" (%y.15, %y.8)
    output "y" (%y) type=f16
    "#);
}

const ROTARY: &str = "graph g(%x: f16[b, 8, s, 64], %c: f16[b, s, 32], %s: f16[b, s, 32]) -> (%y) {
    %y = rotary_embedding(%x, %c, %s) interleaved=false dim=64
}";

#[test]
fn rotary_embeddings_are_layers_where_there_is_one() {
    insta::assert_snapshot!(network(ROTARY, Capabilities::tensorrt((10, 15, 0))), @r#"
    %x f16[b,8,s,64] = input "x" type=f16 dims=[-1,8,-1,64] symbols=[b,-,s,-]
    %c f16[b,s,32] = input "c" type=f16 dims=[-1,-1,32] symbols=[b,s,-]
    %s f16[b,s,32] = input "s" type=f16 dims=[-1,-1,32] symbols=[b,s,-]
    %y f16[b,8,s,64] = rotary_embedding "y" (%x, %c, %s) dim=64
    output "y" (%y) type=f16
    "#);
    let older = network(ROTARY, Capabilities::tensorrt((10, 0, 0)));
    assert!(older.contains("= concatenation") && !older.contains("= rotary_embedding"), "{older}");
}

#[test]
fn numbers_that_no_type_of_the_target_holds_are_named() {
    let reason = |text: &str| network(text, Capabilities::rtx((1, 7, 1)));
    for number in ["1e300", "-1e-300", "16777217.0"] {
        let text = format!(
            "graph g(%x: f64[1]) -> (%y) {{ %c = constant() value=f64[1] {{{number}}} %1 = neg(%x) %y = add(%1, %c) }}"
        );
        assert_eq!(
            reason(&text),
            "a node is unsupported: 'y' (add): `c` holds numbers of f64 that f32 cannot hold",
            "{number}"
        );
    }
    insta::assert_snapshot!(
        reason("graph g(%n: i64[1]) -> (%y) { %y = constant_of_shape(%n) value=u64[1] {9223372036854775808} }"),
        @"a node is unsupported: 'y' (constant_of_shape): its value holds numbers of u64 that i64 cannot hold"
    );
    insta::assert_snapshot!(
        reason("graph g(%x: f32[1]) -> (%y, %c) { %c = constant() value=f64[1] {1e300} %y = neg(%x) }"), @"a node is unsupported: 'c' (constant): it holds numbers of f64 that f32 cannot hold");
}

/// What a loop begins with is no computation, so that its type is left for the walk to change.
#[test]
fn constants_that_a_loop_begins_with_are_narrowed() {
    let looped = |start: &str| {
        let body = "graph b(%i: i64[], %on: bool[], %v: f64[2]) -> (%on as \"c\", %next) { %next = add(%v, %v) }";
        format!(
            "graph g(%m: i64[]) -> (%y) {{ %s = constant() value=f64[2] {{1.0, {start}}}
                %y = loop(%m, _, %s) carried=1 body={body:?} }}"
        )
    };
    insta::assert_snapshot!(network(&looped("2.0"), Capabilities::rtx((1, 7, 1))), @r#"
    %m i64[] = input "m" type=i64 dims=[]
    loop "y" id=0
    trip_limit "y::count" (%m) of=0 kind=count ; y
    %y::true_out = constant "y::true" value=bool[]#495758dfddf4a634 ; y
    %y::zero_out = constant "y::zero" value=i64[]#8518530a4a82bcd8 ; y
    %s_out = constant "s" value=f32[2]#ed6c62980f090325
    %y::carried_out = recurrence "y::carried" (%s_out) of=0 next=%next.3_out ; y
    %next.3_out f32[2] = elementwise "next.3" (%y::carried_out, %y::carried_out) kind=sum ; next
    %y f64[2] = loop_output "y::last" (%y::carried_out) of=0 kind=last_value ; y
    output "y" (%y) type=f32
    "#);
    insta::assert_snapshot!(network(&looped("1e300"), Capabilities::rtx((1, 7, 1))), @"a node is unsupported: 'y' (loop): `s` holds numbers of f64 that f32 cannot hold");
}

/// Floored division of integers has the digits of floats alone.
#[test]
fn remainders_of_integers_have_all_digits() {
    let layers = |divisor: &str| {
        let text = format!(
            "graph g(%a: i32[2], %b: i32[2]) -> (%y) {{ %c = constant() value=i32[] {{32}}
            %y = mod(%a, {divisor}) }}"
        );
        let network = network(&text, Capabilities::rtx((1, 7, 1)));
        assert!(!network.contains("floor_div"), "{network}");
        network
    };
    insta::assert_snapshot!(layers("%b"), @r#"
    %a i32[2] = input "a" type=i32 dims=[2]
    %b i32[2] = input "b" type=i32 dims=[2]
    %y::quotient_out = elementwise "y::quotient" (%a, %b) kind=div ; y
    %y::product_out = elementwise "y::product" (%y::quotient_out, %b) kind=prod ; y
    %y::rest_out = elementwise "y::rest" (%a, %y::product_out) kind=sub ; y
    %y::zero_out = constant "y::zero" value=i32[1]#425045a7dc8b7179 ; y
    %y::below_out = elementwise "y::below" (%y::rest_out, %y::zero_out) kind=less ; y
    %y::above_out = elementwise "y::above" (%y::rest_out, %y::zero_out) kind=greater ; y
    %y::points_down_out = elementwise "y::points_down" (%b, %y::zero_out) kind=less ; y
    %y::other_side_out = select "y::other_side" (%y::points_down_out, %y::above_out, %y::below_out) ; y
    %y::moved_out = elementwise "y::moved" (%y::rest_out, %b) kind=sum ; y
    %y i32[2] = select "y" (%y::other_side_out, %y::moved_out, %y::rest_out)
    output "y" (%y) type=i32
    "#);
    insta::assert_snapshot!(layers("%c"), @r#"
    %a i32[2] = input "a" type=i32 dims=[2]
    %b i32[2] = input "b" type=i32 dims=[2]
    %c_out = constant "c" value=i32[1]#d2027cf29033acb1
    %y::quotient_out = elementwise "y::quotient" (%a, %c_out) kind=div ; y
    %y::product_out = elementwise "y::product" (%y::quotient_out, %c_out) kind=prod ; y
    %y::rest_out = elementwise "y::rest" (%a, %y::product_out) kind=sub ; y
    %y::zero_out = constant "y::zero" value=i32[1]#425045a7dc8b7179 ; y
    %y::below_out = elementwise "y::below" (%y::rest_out, %y::zero_out) kind=less ; y
    %y::moved_out = elementwise "y::moved" (%y::rest_out, %c_out) kind=sum ; y
    %y i32[2] = select "y" (%y::below_out, %y::moved_out, %y::rest_out)
    output "y" (%y) type=i32
    "#);
}

/// What TensorRT 8.5 has no layer or type for is written in what it has: 64-bit integers, conversions and normalizations
/// among them.
#[test]
fn every_model_has_a_network_for_tensorrt_8_5() {
    let target = Capabilities::tensorrt((8, 5, 3));
    let options = Options { capabilities: Some(target.clone()), ..Options::default() };
    let mut failures = Vec::new();
    for name in packed("zoo").into_iter().chain(packed("light")) {
        let graph = optimize(model(&name), &options).unwrap().graph;
        match record(&graph, &options) {
            Ok((network, _)) => {
                let text = network.text();
                let foreign = ["type=i64", "to=i64", "value=i64", "indices=i64", "= normalization"];
                let foreign = |line: &&str| foreign.iter().any(|word| line.contains(word));
                failures.extend(text.lines().find(foreign).map(|line| format!("{name}: {line}")));
            }
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn integers_are_bounded_where_the_target_has_32_bits() {
    let Some(library) = rtx_library() else { return };
    let graph: Graph = "graph g(%x: i64[n], %y: i64[n]) -> (%a) { %a = add(%x, %y) }".parse().unwrap();
    let with = |ranges: &[&str]| Options {
        capabilities: Some(Capabilities::tensorrt((8, 5, 3))),
        ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        ..Options::default()
    };
    let refused = |ranges: &[&str]| build(&graph, &library, &with(ranges), None).unwrap_err().to_string();
    assert_eq!(
        refused(&["n=1:2:4"]),
        "`a` may be beyond i32, in which the target computes i64: say what `x` holds, e.g. --range 'x[]=0:1:1000'"
    );
    assert!(refused(&["n=1:2:4", "x[]=0:1:1000"]).contains("say what `y` holds"));
    let built = build(&graph, &library, &with(&["n=1:2:4", "x[]=0:1:1000", "y[]=-5:1:9"]), None).unwrap();
    let bounds: Vec<_> = built.plan.header().bounds.iter().collect();
    assert_eq!(bounds, [(&"x".to_string(), &(0, 1000)), (&"y".to_string(), &(-5, 9))]);
}

/// ONNX SpaceToDepth: `DCR` puts the places of a block before the channels, `CRD` behind them.
#[test]
fn blocks_go_into_channels_in_the_order_of_the_mode() {
    let transposed = |crd| {
        let text = format!(
            "graph g(%x: f32[1, 2, 4, 6]) -> (%y) {{ %y = depth_to_space(%x) block=2 crd={crd} inverse=true }}"
        );
        let network = network(&text, Capabilities::tensorrt((8, 5, 3)));
        let start = network.find("first_transpose=").unwrap_or_else(|| panic!("{network}"));
        network[start..].split(' ').next().unwrap().to_string()
    };
    assert_eq!(transposed(false), "first_transpose=[0,3,5,1,2,4]");
    assert_eq!(transposed(true), "first_transpose=[0,1,3,5,2,4]");
}

#[test]
fn a_computed_number_of_largest_elements_is_none_for_tensorrt_8_5() {
    let text =
        "graph g(%x: f32[3, 4], %k: i64[1]) -> (%v, %i) { %v, %i = topk(%x, %k) axis=1 largest=true sorted=true }";
    let refused = network(text, Capabilities::tensorrt((8, 5, 3)));
    assert!(
        refused.ends_with("'v' (topk): this TensorRT takes no computed number of largest or smallest elements"),
        "{refused}"
    );
    let taken = network(text, Capabilities::tensorrt((8, 6, 1)));
    assert!(taken.contains("output \"v\"") && taken.contains("k=%"), "{taken}");
}
