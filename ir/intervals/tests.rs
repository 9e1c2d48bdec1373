use super::*;

/// The values that may leave `i32`, with `n` from 1 to 4096.
fn found(nodes: &str, outputs: &str) -> Vec<String> {
    let text =
        format!("graph g(%x: i64[n], %y: i64[n], %z: i64[n], %b: bool[n], %f: f32[n]) -> ({outputs}) {{ {nodes} }}");
    let graph: Graph = text.parse().unwrap();
    let values =
        beyond(&graph, DType::I64, Interval::I32, &|_| Some((1, 4096)), &|name| (name == "z").then_some((0, 1)));
    values.iter().map(ToString::to_string).collect()
}

#[test]
fn arithmetic_on_inputs_may_leave() {
    for op in ["add", "sub", "mul"] {
        assert_eq!(found(&format!("%a = {op}(%x, %y)"), "%a"), ["a"], "{op}");
    }
    assert_eq!(found("%a = neg(%x)", "%a"), ["a"]);
    assert_eq!(found("%k = constant() value=i64[] {0} %a = cumulative(%x, %k)", "%a"), ["a"]);
    assert_eq!(found("%a = cast(%f) to=i64", "%a"), ["a"]);
    assert_eq!(found("%a = reduce(%x) kind=sum axes=[0]", "%a"), ["a"]);
}

#[test]
fn only_the_first_that_leaves_is_told() {
    assert_eq!(found("%a = add(%x, %y) %c = neg(%a) %d = min(%c, %x)", "%d"), ["a", "c"]);
    assert_eq!(found("%a = mul(%x, %y) %c = reshape(%a) shape=[1, n]", "%c"), ["a"]);
}

#[test]
fn what_is_small_stays() {
    for nodes in [
        "%a = min(%x, %y)",
        "%m = cast(%b) to=i64 %k = constant() value=i64[] {0} %s = cumulative(%m, %k) %a = mul(%s, %s)",
        "%s = shape(%x) start=0 end=1 %t = mul(%s, %s) %a = reduce(%t) kind=sum axes=[0]",
        "%k = constant() value=i64[] {7} %m = mod(%x, %k) %a = mul(%m, %m)",
        "%k = constant() value=i64[] {2} %a = div(%x, %k)",
        "%c = clip(%f) p=[0.0, 100.0] %a = cast(%c) to=i64",
        "%s = reduce(%z) kind=sum axes=[0] %t = mul(%s, %s) %a = add(%t, %z)",
        "%o = constant() value=i64[] {0} %l = less(%x, %o) %d = constant() value=i64[] {7} %s = add(%x, %d)
            %a = where(%l, %s, %x)",
        "%k = arg_reduce(%f) axis=0 %a = add(%k, %k)",
        "%m = cast(%b) to=i64 %s = reduce(%m) kind=sum axes=[0] %t = mul(%s, %s) %a = sub(%t, %s)",
    ] {
        assert_eq!(found(nodes, "%a"), Vec::<String>::new(), "{nodes}");
    }
}

#[test]
fn an_unlike_guard_tells_nothing() {
    for (condition, readers) in
        [("less(%y, %o)", ""), ("less(%o, %x)", ""), ("less(%x, %d)", ""), ("less(%x, %o)", "%r = neg(%s)")]
    {
        let rest = format!("%a = where(%l, %s, %x) {readers}");
        let nodes = format!(
            "%o = constant() value=i64[] {{0}} %d = constant() value=i64[] {{7}} %l = {condition} %s = add(%x, %d) {rest}"
        );
        let outputs = if readers.is_empty() { "%a" } else { "%a, %r" };
        assert_eq!(found(&nodes, outputs).first().map(String::as_str), Some("s"), "{nodes}");
    }
}

#[test]
fn a_divisor_that_may_be_nothing_tells_nothing() {
    assert_eq!(found("%m = cast(%b) to=i64 %a = div(%x, %m)", "%a"), ["a"]);
}

/// Evaluates a graph: every number must be in its value's interval, unless the value is told or needs one that is.
fn check(inputs: &str, nodes: &str, given: &[Tensor], stated: &[(&str, i64, i64)]) -> Vec<String> {
    let graph: Graph = format!("graph g({inputs}) -> (%a) {{ {nodes} }}").parse().unwrap();
    let input = |name: &str| stated.iter().find(|(stated, ..)| *stated == name).map(|(_, min, max)| (*min, *max));
    let (known, found) = analysed(&graph, DType::I64, Interval::I32, &|_| Some((0, 4096)), &input);
    if found.is_empty() {
        let mut observe = |value: ValueRef, tensor: &Tensor| {
            let interval = known[&value];
            let held = numbers(tensor).is_none_or(|numbers| numbers == Interval::ALL || interval.holds(numbers));
            assert!(held, "{nodes}: {} is {tensor:?}, not in {interval:?}", graph.value(value).unwrap().name);
        };
        crate::eval::eval_with(&graph, given, &Default::default(), &mut observe).unwrap();
    }
    found.iter().map(ToString::to_string).collect()
}

fn float(number: f32) -> Vec<Tensor> {
    vec![Tensor::vector(vec![number])]
}

#[test]
fn conversions_round_saturate_and_wrap() {
    for (nodes, number) in [
        ("%c = clip(%f) p=[0.0, 0.9] %b = cast(%c) to=bool %a = cast(%b) to=i64", 0.5),
        ("%c = clip(%f) p=[0.0, 0.9] %h = cast(%c) to=f16 %a = cast(%h) to=f32", 0.9),
        ("%c = clip(%f) p=[-0.9, 0.9] %a = cast(%c) to=i64", -0.9),
        ("%c = clip(%f) p=[0.5, 0.5] %a = round(%c)", 0.5),
        ("%c = clip(%f) p=[1.0, 2.0] %a = cast(%c) to=i64", f32::NAN),
        ("%c = clip(%f) p=[0.1, 0.3] %k = constant() value=f32[1] {0.7} %a = mul(%c, %k)", 0.1),
    ] {
        assert_eq!(check("%f: f32[1]", nodes, &float(number), &[]), Vec::<String>::new(), "{nodes}");
    }
    let clip = "%c = clip(%f) p=[2147483520.0, 2147483520.0] %k = constant() value=f32[1] {64.0} %g = add(%c, %k)";
    assert_eq!(check("%f: f32[1]", &format!("{clip} %a = cast(%g) to=i64"), &float(0.0), &[]), ["a"]);
    let whole = |number: i64| vec![Tensor::vector(vec![number])];
    let nodes = "%g = cast(%x) to=f32 %a = cast(%g) to=i64";
    assert_eq!(check("%x: i64[1]", nodes, &whole(2_147_483_647), &[]), ["a"]);
    let nodes = "%g = cast(%x) to=f16 %a = cast(%g) to=i64";
    assert_eq!(check("%x: i64[1]", nodes, &whole(70000), &[("x", 0, 70000)]), ["a"]);
    for dtype in ["u8", "i8", "u16", "bool"] {
        let nodes = format!("%g = cast(%x) to={dtype} %a = cast(%g) to=i64");
        assert_eq!(check("%x: i64[1]", &nodes, &whole(-1), &[("x", -5, 5)]), Vec::<String>::new());
    }
    assert_eq!(check("%x: i64[1]", "%g = cast(%x) to=u32 %a = cast(%g) to=i64", &whole(-1), &[]), ["a"]);
    let nodes = "%k = constant() value=u8[1] {20} %g = sub(%x, %k) %a = cast(%g) to=i64";
    assert_eq!(check("%x: u8[1]", nodes, &[Tensor::vector(vec![10_u8])], &[]), Vec::<String>::new());
}

#[test]
fn each_rule_holds_what_it_bounds() {
    let (x, y) = (vec![-7_i64, 3, 0, 5, 2], vec![2_i64, -3, 1, 4, 5]);
    let given = [Tensor::vector(x), Tensor::vector(y)];
    let stated = [("x", -7, 5), ("y", -3, 5)];
    let places = "%at = constant() value=i64[5] {0, 4, 1, 2, 0}";
    for nodes in [
        "%a = neg(%x)",
        "%a = abs(%x)",
        "%a = abs(%y)",
        "%a = sign(%x)",
        "%a = identity(%x)",
        "%a = add(%x, %y)",
        "%a = sub(%x, %y)",
        "%a = mul(%x, %y)",
        "%a = min(%x, %y)",
        "%a = max(%x, %y)",
        "%k = constant() value=i64[] {2} %a = div(%x, %k)",
        "%k = constant() value=i64[] {-2} %a = div(%x, %k)",
        "%k = constant() value=i64[] {3} %a = mod(%x, %k)",
        "%k = constant() value=i64[] {3} %a = fmod(%x, %k)",
        "%k = constant() value=i64[] {3} %a = bitwise_and(%x, %k)",
        "%k = constant() value=i64[] {3} %a = bitwise_and(%k, %x)",
        "%l = less(%x, %y) %a = where(%l, %x, %y)",
        "%l = less(%x, %y) %a = where(%l, %y, %x)",
        "%a = concat(%x, %y) axis=0",
        "%a = concat(%y, %x) axis=0",
        "%a = reduce(%x) kind=sum axes=[0]",
        "%a = reduce(%x) kind=max axes=[0]",
        "%a = reduce(%x) kind=min axes=[0]",
        "%a = reduce(%x) kind=mean axes=[0]",
        "%a = reduce(%x) kind=sum axes=[]",
        "%a = reduce(%x) kind=sum",
        "%a = reduce(%x) kind=sum noop_if_empty=true",
        "%r = constant() value=i64[1] {0} %a = reduce(%x, %r) kind=sum",
        "%o = constant() value=i64[] {0} %a = cumulative(%x, %o)",
        "%o = constant() value=i64[] {0} %a = cumulative(%x, %o) exclusive=true",
        "%p = constant() value=i64[2] {1, 1} %a = pad(%y, %p) mode=constant",
        "%p = constant() value=i64[2] {1, 1} %f = constant() value=i64[] {9} %a = pad(%y, %p, %f) mode=constant",
        "%u = unsqueeze(%x) axes=[0] %a = trilu(%u) upper=true",
        "%a = size(%x)",
        "%a = shape(%x) start=0 end=1",
        "%a = nonzero(%x)",
        "%a = arg_reduce(%x) axis=0",
        "%d = constant() value=i64[] {6} %v = constant() value=i64[2] {-1, 8} %a = one_hot(%at, %d, %v) axis=-1",
        "%a = relu(%x)",
        "%i = constant() value=i64[5] {4, 0, 1, 2, 3} %a = scatter_elements(%x, %i, %y) axis=0 reduction=none",
        "%a = gather(%x, %at) axis=0",
        "%z = shape(%x) start=0 end=1 %a = constant_of_shape(%z) value=i64[1] {-3}",
        "%s = constant() value=i64[] {-2} %t = constant() value=i64[] {9} %u = constant() value=i64[] {4} %q = reduce(%x) kind=max axes=[0] %a = range(%s, %t, %u)",
    ] {
        let nodes = format!("{places} {nodes}");
        assert_eq!(check("%x: i64[5], %y: i64[5]", &nodes, &given, &stated), Vec::<String>::new(), "{nodes}");
    }
}

/// The interval of `a`, if nothing is told.
fn of(nodes: &str, x: (i64, i64), y: (i64, i64)) -> Option<(f64, f64)> {
    let text = format!("graph g(%x: i64[5], %y: i64[5], %f: f32[5], %c: bool[], %e: i64[n]) -> (%a) {{ {nodes} }}");
    let graph: Graph = text.parse().unwrap();
    let stated = |name: &str| [("x", x), ("y", y)].into_iter().find(|(stated, _)| *stated == name).map(|(_, at)| at);
    let (known, found) = analysed(&graph, DType::I64, Interval::I32, &|_| Some((0, 4096)), &stated);
    let interval = known[&graph.outputs()[0].value];
    found.is_empty().then_some((interval.min, interval.max))
}

#[test]
fn bounds_are_as_narrow_and_as_wide() {
    let (low, high) = ((-7, 5), (8, 9));
    let numbers = "%s = constant() value=i64[] {-2} %t = constant() value=i64[] {9} %u = constant() value=i64[] {4}
        %two = constant() value=i64[] {2}";
    for (nodes, interval) in [
        ("%q = reduce(%x) kind=max axes=[0] %a = range(%q, %t, %u)", (-7.0, 9.0)),
        ("%q = unsqueeze(%y) axes=[0] %a = trilu(%q) upper=true", (0.0, 9.0)),
        ("%a = max(%x, %y)", (8.0, 9.0)),
        ("%a = min(%x, %y)", (-7.0, 5.0)),
        ("%q = clip(%f) p=[1.0, 2.0] %a = cast(%q) to=i64", (0.0, 2.0)),
        ("%o = constant() value=i64[] {0} %a = cumulative(%y, %o)", (0.0, 45.0)),
        ("%a = div(%x, %two)", (-3.0, 2.0)),
        ("%a = reduce(%y) kind=sum noop_if_empty=true", (8.0, 9.0)),
        ("%q = constant() value=i64[1] {0} %r = add(%q, %q) %a = reduce(%y, %r) kind=sum", (8.0, 45.0)),
        ("%a = reduce(%y) kind=sum axes=[]", (40.0, 45.0)),
        ("%a = bitwise_and(%x, %y)", (0.0, 9.0)),
    ] {
        assert_eq!(of(&format!("{numbers} {nodes}"), low, high), Some(interval), "{nodes}");
    }
}

#[test]
fn what_may_leave_is_told() {
    for nodes in [
        "%a = reduce(%e) kind=max axes=[0]",
        "%q = constant() value=i64[] {100} %a = div(%q, %x)",
        "%a = bitwise_and(%e, %e)",
        "%a = slice(%e) axes=[0] starts=[0] ends=[(1000000*n)] steps=[1]",
    ] {
        assert_eq!(of(nodes, (-1, 1), (0, 0)), None, "{nodes}");
    }
    let branch = |op: &str| format!("graph b(%e: i64[n]) -> (%r) {{\\n  %r = {op}(%e, %e) : i64[n]\\n}}\\n");
    let inside = |op: &str| {
        let (a, b) = (branch("min"), branch(op));
        of(&format!("%a = if(%c, %e) then_branch=\"{a}\" else_branch=\"{b}\""), (0, 0), (0, 0))
    };
    assert!(inside("max").is_some());
    assert_eq!(inside("mul"), None);
}

#[test]
fn large_weights_are_not_looked_at() {
    let weights = Tensor::from_vec([MAX_KNOWN_ELEMENTS + 1], vec![1.0_f32; MAX_KNOWN_ELEMENTS + 1]).unwrap();
    assert_eq!(numbers(&weights), None);
    let places = Tensor::vector((0..2000_i64).collect());
    assert_eq!(numbers(&places), Some(Interval::between(0.0, 1999.0)));
}
