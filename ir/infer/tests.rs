use crate::Graph;

/// The types that inference gives the values of a graph's body, one a line, known elements after `=`.
fn types(inputs: &str, body: &str) -> String {
    let graph: Graph = format!("graph g({inputs}) -> () {{\n{body}\n}}").parse().unwrap();
    let mut lines = String::new();
    for id in graph.topo() {
        let node = graph.node(id).unwrap();
        if matches!(node.op, crate::Op::Input | crate::Op::Constant(_)) {
            continue;
        }
        for value in &node.outputs {
            lines.push_str(&format!("{}: {}", value.name, value.info));
            if let Some(elements) = value.info.known_elements() {
                lines.push_str(&format!(" = {elements:?}"));
            }
            lines.push('\n');
        }
    }
    lines
}

#[test]
fn a_convolution_block() {
    let found = types(
        "%x: f32[batch, 3, h, 224], %w: f32[64, 3, 7, 7], %s: f32[64]",
        "%y = conv(%x, %w, %s) strides=[2, 2] dilations=[1, 1] padding=[3, 3, 3, 3] groups=1
         %n = batch_norm(%y, %s, %s, %s, %s) epsilon=0.001
         %r = relu(%n)
         %p = pool(%r) kind=max kernel=[3, 3] strides=[2, 2] dilations=[1, 1] padding=[1, 1, 1, 1]
         %g = reduce(%p) kind=mean axes=[2, 3] keep_dims=true
         %f = flatten(%g) axis=1",
    );
    let expected = "\
y: f32[batch, 64, (h+1)/2, 112]
n: f32[batch, 64, (h+1)/2, 112]
r: f32[batch, 64, (h+1)/2, 112]
p: f32[batch, 64, (h+3)/4, 56]
g: f32[batch, 64, 1, 1]
f: f32[batch, 64]
";
    assert_eq!(found, expected);
}
