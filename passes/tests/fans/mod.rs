//! Graphs of one tensor that many nodes read, to see how the pipeline's work grows with them.

use trt_fuse_ir::Graph;

/// A tensor, `%h`, and what reads it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fan {
    /// What the readers are.
    pub(crate) name: &'static str,
    /// The type of the input, `%x`.
    input: &'static str,
    /// What gives `%h` from it.
    hub: &'static str,
    /// A reader: `%y@` is what it gives, `@` its number from 0, `>` the next number, `#` how many readers there are.
    reader: &'static str,
    /// Whether one concatenation reads all that the readers give; otherwise a tree of sums does.
    joined: bool,
}

const fn of(name: &'static str, input: &'static str, hub: &'static str, reader: &'static str, joined: bool) -> Fan {
    Fan { name, input, hub, reader, joined }
}

/// All fans.
pub(crate) const FANS: [Fan; 14] = [
    of("relus", "f32[1, 4]", "%h = exp(%x)", "%y@ = relu(%h)", true),
    of("activations", "f32[1, 4]", "%h = exp(%x)", "%y@ = leaky_relu(%h) p=[@]", true),
    of("sums", "f32[1, 4]", "%h = exp(%x)", "%y@ = leaky_relu(%h) p=[@]", false),
    of(
        "epilogues",
        "f32[1, 4]",
        "%w = constant() value=f32[4, 4] splat 2 %h = matmul(%x, %w)",
        "%y@ = leaky_relu(%h) p=[@]",
        true,
    ),
    of(
        "products",
        "f32[1, 4]",
        "%h = exp(%x)",
        "%w@ = constant() value=f32[4, 4] splat @ %y@ = matmul(%h, %w@)",
        false,
    ),
    of(
        "heads",
        "f32[1, 4]",
        "%h = exp(%x)",
        "%w@ = constant() value=f32[4, 4] splat @ %m@ = matmul(%h, %w@) %a@ = add(%m@, %w@) %y@ = reshape(%m@) shape=[2, 2]",
        true,
    ),
    of("slices", "f32[#]", "%h = exp(%x)", "%y@ = slice(%h) axes=[0] starts=[@] ends=[>] steps=[1]", true),
    of(
        "negations",
        "f32[#]",
        "%h = exp(%x)",
        "%s@ = slice(%h) axes=[0] starts=[@] ends=[>] steps=[1] %y@ = neg(%s@)",
        false,
    ),
    of("gathers", "f32[#, 4]", "%h = exp(%x)", "%i@ = constant() value=i64[] {@} %y@ = gather(%h, %i@) axis=0", false),
    of(
        "concats",
        "f32[1, 4]",
        "%h = concat(%x, %x) axis=0",
        "%a@ = leaky_relu(%x) p=[@] %y@ = concat(%h, %a@) axis=0",
        false,
    ),
    of(
        "parts",
        "f32[1, 8]",
        "%h, %g = split(%x) axis=1 sizes=[4, 4]",
        "%w@ = constant() value=f32[4, 4] splat @ %a@ = matmul(%h, %w@) %b@ = matmul(%g, %w@) %y@ = sub(%a@, %b@)",
        true,
    ),
    of("layouts", "f32[4, 4]", "%h = exp(%x)", "%t@ = transpose(%h) perm=[1, 0] %y@ = leaky_relu(%t@) p=[@]", true),
    of(
        "shapes",
        "f32[4, 4]",
        "%h = reshape(%x) shape=[16]",
        "%t@ = reshape(%h) shape=[2, 8] %y@ = leaky_relu(%t@) p=[@]",
        true,
    ),
    of(
        "constants",
        "f32[4, 4]",
        "%h = constant() value=f32[4, 4] splat 2",
        "%a@ = leaky_relu(%x) p=[@] %y@ = mul(%a@, %h)",
        true,
    ),
];

impl Fan {
    /// The fan of so many readers.
    pub(crate) fn graph(&self, readers: usize) -> Graph {
        let fill = |text: &str, at: usize| {
            let next = (at + 1).to_string();
            text.replace('@', &at.to_string()).replace('>', &next).replace('#', &readers.to_string())
        };
        let mut text = format!("graph fan(%x: {}) -> (%out) {{\n{}\n", fill(self.input, 0), self.hub);
        for at in 0..readers {
            text.push_str(&fill(self.reader, at));
            text.push('\n');
        }
        let mut values: Vec<String> = (0..readers).map(|at| format!("%y{at}")).collect();
        if self.joined {
            text.push_str(&format!("%out = concat({}) axis=0\n", values.join(", ")));
        } else {
            let mut sums = 0;
            while values.len() > 1 {
                let pairs = values.chunks(2).map(|pair| match pair {
                    [a, b] => {
                        sums += 1;
                        text.push_str(&format!("%s.{sums} = add({a}, {b})\n"));
                        format!("%s.{sums}")
                    }
                    rest => rest.concat(),
                });
                values = pairs.collect();
            }
            text.push_str(&format!("%out = exp({})\n", values.concat()));
        }
        text.push('}');
        text.parse().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}
