//! Graphs of any length, to see how the pipeline's work grows with them.

use trt_fuse_ir::Graph;

/// A graph of equal links one after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    /// What the links are of.
    pub(crate) name: &'static str,
    /// The type of the first link's input.
    input: &'static str,
    /// A link: `%<` is what the one before gives and `%y@` what this one gives, `@` its number from 1, `#` how many
    /// links there are from it on.
    link: &'static str,
    /// Operations of a link.
    nodes: usize,
}

/// All chains.
pub(crate) const CHAINS: [Chain; 15] = [
    of("transposes", "f32[4, 4, 4]", 1, "%y@ = transpose(%<) perm=[1, 2, 0]"),
    of("constants", "f32[4, 4]", 2, "%c@ = constant() value=f32[1] {@} %a@ = add(%<, %c@) %y@ = mul(%c@, %a@)"),
    of("sums", "f32[4, 4]", 1, "%c@ = constant() value=f32[4] {@, 1, 2, 3} %y@ = add(%<, %c@)"),
    of("activations", "f32[4, 4]", 3, "%a@ = relu(%<) %b@ = identity(%a@) %y@ = neg(%b@)"),
    of("relus", "f32[4, 4]", 1, "%y@ = relu(%<)"),
    of("reshapes", "f32[4, 4, 4]", 2, "%a@ = reshape(%<) shape=[16, 4] %y@ = reshape(%a@) shape=[4, 4, 4]"),
    of("casts", "f32[4, 4]", 2, "%a@ = cast(%<) to=f64 %y@ = cast(%a@) to=f32"),
    of("slices", "f32[#]", 1, "%y@ = slice(%<) axes=[0] starts=[1] ends=[#] steps=[1]"),
    of("concats", "f32[4]", 1, "%c@ = constant() value=f32[1] {@} %y@ = concat(%<, %c@) axis=0"),
    of("layouts", "f32[4, 4, 4]", 2, "%a@ = transpose(%<) perm=[1, 2, 0] %y@ = exp(%a@)"),
    of("shuffles", "f32[4, 4, 4]", 2, "%a@ = transpose(%<) perm=[0, 2, 1] %y@ = reshape(%a@) shape=[4, 4, 4]"),
    of("residuals", "f32[4, 4]", 2, "%a@ = exp(%<) %y@ = add(%a@, %<)"),
    of("siblings", "f32[4, 4]", 2, "%a@ = leaky_relu(%x) p=[@] %y@ = sub(%<, %a@)"),
    of(
        "products",
        "f32[4, 4]",
        3,
        "%w@ = constant() value=f32[4, 4] splat @ %b@ = constant() value=f32[4] {@, 1, 2, 3}
         %m@ = matmul(%<, %w@) %a@ = add(%m@, %b@) %y@ = relu(%a@)",
    ),
    of(
        "mixed",
        "f32[2, 8]",
        10,
        "%one@ = constant() value=f32[] {1} %three@ = constant() value=f32[] {3}
         %a@ = relu(%<) %b@ = add(%three@, %a@) %c@ = identity(%b@)
         %d@ = reshape(%c@) shape=[16] %e@ = reshape(%d@) shape=[2, 8]
         %f@ = transpose(%e@) perm=[1, 0] %g@ = transpose(%f@) perm=[1, 0]
         %h@, %i@ = split(%g@) axis=1 sizes=[4, 4] %j@ = concat(%h@, %i@) axis=1
         %y@ = mul(%j@, %one@)",
    ),
];

const fn of(name: &'static str, input: &'static str, nodes: usize, link: &'static str) -> Chain {
    Chain { name, input, link, nodes }
}

impl Chain {
    /// The chain of about as many operations.
    pub(crate) fn graph(&self, nodes: usize) -> Graph {
        let links = nodes / self.nodes;
        let mut text = format!("graph chain(%x: {}) -> (%y{links}) {{\n", self.input.replace('#', &links.to_string()));
        for at in 1..=links {
            let last = if at == 1 { "x".to_string() } else { format!("y{}", at - 1) };
            let link = self.link.replace('<', &last).replace('@', &at.to_string());
            text.push_str(&link.replace('#', &(links + 1 - at).to_string()));
            text.push('\n');
        }
        text.push('}');
        text.parse().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}
