//! Where the nodes of a graph are drawn: in layers, each node below those that it reads.
//!
//! Longest paths give the layers, means over neighbours the order in each, and least squares the horizontal places, so
//! that a chain is a straight line. An edge over several layers goes through a point in each, up to a length; longer ones
//! are drawn as they come, so that time and size stay linear in the graph but for sorting.

/// Layers over which an edge has points.
const MAX_SPAN: usize = 40;
/// Walks over all layers, down and up by turns.
const SWEEPS: usize = 6;
/// Room between two neighbours.
const GAP: f32 = 24.0;
/// Room that an edge takes in a layer that it passes.
const EDGE: f32 = 4.0;
/// From one layer to the next.
const HEIGHT: f32 = 64.0;

/// Places of nodes and edges.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// The centre of each node.
    pub nodes: Vec<(f32, f32)>,
    /// The points of each edge between its two nodes.
    pub bends: Vec<Vec<(f32, f32)>>,
    /// Right end of the picture; the left one is 0.
    pub width: f32,
    /// Lower end of the picture.
    pub height: f32,
}

/// Lays out a graph of nodes with the given widths, in topological order: an edge goes from a node to a later one, and any
/// other is left as it comes.
pub fn layout(widths: &[f32], edges: &[(usize, usize)]) -> Layout {
    let layer = layers(widths.len(), edges);
    let mut drawing = Drawing::new(widths, edges, &layer);
    for sweep in 0..SWEEPS {
        drawing.order(sweep % 2 == 0);
    }
    drawing.spread();
    let weights: Vec<f32> = drawing.lengths(true).iter().zip(drawing.lengths(false)).map(|(a, b)| a * b).collect();
    for sweep in 0..SWEEPS {
        drawing.place(sweep % 2 == 0, &weights);
    }
    drawing.finish(widths.len())
}

/// The layer of each node: below all that it reads; what reads nothing, right above its first reader.
fn layers(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut is_source = vec![true; count];
    for &(from, to) in edges.iter().filter(|(from, to)| from < to && *to < count) {
        readers[from].push(to);
        is_source[to] = false;
    }
    let mut layer = vec![0_usize; count];
    for from in 0..count {
        for to in &readers[from] {
            layer[*to] = layer[*to].max(layer[from] + 1);
        }
    }
    for from in (0..count).filter(|from| is_source[*from]) {
        let first = readers[from].iter().map(|to| layer[*to]).min();
        layer[from] = first.map_or(0, |first| first.saturating_sub(1));
    }
    layer
}

/// Nodes, and the points of edges in the layers that they pass, as cells in layers.
struct Drawing {
    /// Cells of each layer from left to right.
    rows: Vec<Vec<usize>>,
    /// Half of the room that each cell takes.
    half: Vec<f32>,
    layer: Vec<usize>,
    /// Neighbours of each cell in the layer above, and in that below.
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
    x: Vec<f32>,
    /// The cells of each edge between its nodes.
    bends: Vec<Vec<usize>>,
}

impl Drawing {
    fn new(widths: &[f32], edges: &[(usize, usize)], layer: &[usize]) -> Self {
        let rows = layer.iter().max().map_or(0, |last| last + 1);
        let mut drawing = Self {
            rows: vec![Vec::new(); rows],
            half: Vec::new(),
            layer: Vec::new(),
            above: Vec::new(),
            below: Vec::new(),
            x: Vec::new(),
            bends: vec![Vec::new(); edges.len()],
        };
        for (width, layer) in widths.iter().zip(layer) {
            drawing.cell(*layer, (width + GAP) / 2.0);
        }
        for (at, &(from, to)) in edges.iter().enumerate() {
            let (Some(&first), Some(&last)) = (layer.get(from), layer.get(to)) else { continue };
            if last <= first || last - first > MAX_SPAN {
                continue;
            }
            let mut upper = from;
            for row in first + 1..last {
                let bend = drawing.cell(row, EDGE);
                drawing.link(upper, bend);
                drawing.bends[at].push(bend);
                upper = bend;
            }
            drawing.link(upper, to);
        }
        drawing
    }

    fn cell(&mut self, row: usize, half: f32) -> usize {
        let cell = self.half.len();
        self.half.push(half);
        self.layer.push(row);
        self.above.push(Vec::new());
        self.below.push(Vec::new());
        self.x.push(self.rows[row].len() as f32);
        self.rows[row].push(cell);
        cell
    }

    fn link(&mut self, upper: usize, lower: usize) {
        self.below[upper].push(lower);
        self.above[lower].push(upper);
    }

    /// The rows, in the direction of a sweep.
    fn walk(&self, down: bool) -> Box<dyn Iterator<Item = usize>> {
        if down { Box::new(0..self.rows.len()) } else { Box::new((0..self.rows.len()).rev()) }
    }

    /// A cell's neighbours in the row that a sweep comes from.
    fn neighbours(&self, cell: usize, down: bool) -> &[usize] {
        if down { &self.above[cell] } else { &self.below[cell] }
    }

    /// Cells on the longest path that a sweep takes to each cell.
    fn lengths(&self, down: bool) -> Vec<f32> {
        let mut lengths = vec![1.0_f32; self.half.len()];
        for row in self.walk(down) {
            for cell in &self.rows[row] {
                let longest = self.neighbours(*cell, down).iter().map(|other| lengths[*other]).fold(0.0, f32::max);
                lengths[*cell] += longest;
            }
        }
        lengths
    }

    /// The mean place of a cell's neighbours in the row that a sweep comes from.
    fn pull(&self, cell: usize, down: bool, weight: &dyn Fn(usize) -> f32) -> Option<f32> {
        let neighbours = self.neighbours(cell, down);
        let sum: f32 = neighbours.iter().map(|other| self.x[*other] * weight(*other)).sum();
        let weights: f32 = neighbours.iter().map(|other| weight(*other)).sum();
        (!neighbours.is_empty()).then(|| sum / weights)
    }

    /// Sorts each row by the mean position of its cells' neighbours.
    fn order(&mut self, down: bool) {
        for row in self.walk(down) {
            let mut cells = std::mem::take(&mut self.rows[row]);
            let mut keyed: Vec<(f32, usize)> =
                cells.iter().map(|cell| (self.pull(*cell, down, &|_| 1.0).unwrap_or(self.x[*cell]), *cell)).collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            cells.clear();
            for (at, (_, cell)) in keyed.into_iter().enumerate() {
                self.x[cell] = at as f32;
                cells.push(cell);
            }
            self.rows[row] = cells;
        }
    }

    /// Puts the cells of each row side by side, around 0.
    fn spread(&mut self) {
        for row in &self.rows {
            let total: f32 = row.iter().map(|cell| 2.0 * self.half[*cell]).sum();
            let mut left = -total / 2.0;
            for cell in row {
                self.x[*cell] = left + self.half[*cell];
                left += 2.0 * self.half[*cell];
            }
        }
    }

    /// Moves the cells of each row as near to their neighbours as their order allows. A cell counts by the paths that lead
    /// to it and from it, so that a leaf does not push the trunk aside.
    fn place(&mut self, down: bool, weights: &[f32]) {
        for row in self.walk(down) {
            let cells = std::mem::take(&mut self.rows[row]);
            let pull = |cell: &usize| self.pull(*cell, down, &|other| weights[other]).unwrap_or(self.x[*cell]);
            let wanted: Vec<f32> = cells.iter().map(pull).collect();
            let half: Vec<f32> = cells.iter().map(|cell| self.half[*cell]).collect();
            let weight: Vec<f32> = cells.iter().map(|cell| weights[*cell]).collect();
            for (cell, x) in cells.iter().zip(nearest(&wanted, &half, &weight)) {
                self.x[*cell] = x;
            }
            self.rows[row] = cells;
        }
    }

    fn finish(self, nodes: usize) -> Layout {
        let left = self.x.iter().zip(&self.half).fold(0.0_f32, |left, (x, half)| left.min(x - half));
        let right = self.x.iter().zip(&self.half).fold(0.0_f32, |right, (x, half)| right.max(x + half));
        let point = |cell: usize| (self.x[cell] - left, (self.layer[cell] as f32 + 0.5) * HEIGHT);
        Layout {
            nodes: (0..nodes).map(point).collect(),
            bends: self.bends.iter().map(|cells| cells.iter().copied().map(point).collect()).collect(),
            width: right - left,
            height: self.rows.len() as f32 * HEIGHT,
        }
    }
}

/// The places nearest to those wanted, in weighted least squares, at which neighbours do not overlap: each takes `half` to
/// both sides. Cells that would overlap become a block, which stands where its cells want it on the mean.
fn nearest(wanted: &[f32], half: &[f32], weight: &[f32]) -> Vec<f32> {
    struct Block {
        /// Weighted sum of the places that the cells want for the row's first cell.
        sum: f32,
        weight: f32,
        cells: usize,
    }
    impl Block {
        fn base(&self) -> f32 {
            self.sum / self.weight
        }
    }
    let mut offsets = Vec::with_capacity(wanted.len());
    let mut blocks: Vec<Block> = Vec::new();
    let mut offset = 0.0;
    for (at, ((wanted, half_here), weight)) in wanted.iter().zip(half).zip(weight).enumerate() {
        if let Some(before) = at.checked_sub(1).and_then(|before| half.get(before)) {
            offset += before + half_here;
        }
        offsets.push(offset);
        blocks.push(Block { sum: (wanted - offset) * weight, weight: *weight, cells: 1 });
        while let [.., left, right] = blocks.as_mut_slice() {
            if left.base() <= right.base() {
                break;
            }
            left.sum += right.sum;
            left.weight += right.weight;
            left.cells += right.cells;
            blocks.pop();
        }
    }
    let bases = blocks.iter().flat_map(|block| std::iter::repeat_n(block.base(), block.cells));
    bases.zip(offsets).map(|(base, offset)| base + offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xs(layout: &Layout) -> Vec<f32> {
        layout.nodes.iter().map(|node| node.0).collect()
    }

    #[test]
    fn a_chain_is_a_straight_line() {
        let layout = layout(&[40.0, 80.0, 60.0], &[(0, 1), (1, 2)]);
        assert_eq!(xs(&layout), [52.0; 3]);
        assert_eq!(layout.nodes.iter().map(|node| node.1).collect::<Vec<_>>(), [32.0, 96.0, 160.0]);
        assert_eq!((layout.width, layout.height), (104.0, 192.0));
    }

    #[test]
    fn a_skip_goes_around_what_it_skips() {
        let layout = layout(&[40.0; 4], &[(0, 1), (1, 2), (2, 3), (0, 3)]);
        assert_eq!(layout.bends[3].len(), 2);
        for (bend, node) in layout.bends[3].iter().zip([1, 2]) {
            assert_eq!(bend.1, layout.nodes[node].1);
            assert!((bend.0 - layout.nodes[node].0).abs() >= 20.0, "{layout:?}");
        }
    }

    #[test]
    fn neighbours_do_not_overlap_and_sit_where_they_want() {
        assert_eq!(nearest(&[0.0, 10.0], &[1.0, 1.0], &[1.0, 1.0]), [0.0, 10.0]);
        assert_eq!(nearest(&[5.0, 5.0, 5.0], &[1.0, 1.0, 1.0], &[1.0; 3]), [3.0, 5.0, 7.0]);
        assert_eq!(nearest(&[9.0, 0.0, 20.0], &[2.0, 3.0, 1.0], &[1.0; 3]), [2.0, 7.0, 20.0]);
        assert_eq!(nearest(&[0.0, 0.0], &[1.0, 1.0], &[3.0, 1.0]), [-0.5, 1.5]);
    }

    #[test]
    fn what_reads_nothing_stands_by_its_reader() {
        let layout = layout(&[40.0; 4], &[(0, 1), (1, 3), (2, 3)]);
        assert_eq!(layout.nodes[2].1, layout.nodes[1].1);
    }

    #[test]
    fn leaves_do_not_push_the_trunk_aside() {
        // A chain of 300, every link of which reads a leaf of its own too.
        let mut edges: Vec<(usize, usize)> = (0..299).map(|at| (at * 2, at * 2 + 2)).collect();
        edges.extend((0..299).map(|at| (at * 2 + 1, at * 2 + 2)));
        edges.sort_unstable();
        let layout = layout(&[80.0; 599], &edges);
        assert!(layout.width < 1200.0, "{}", layout.width);
    }

    #[test]
    fn edges_that_lead_back_or_nowhere_do_no_harm() {
        let layout = layout(&[40.0; 2], &[(1, 0), (0, 9), (0, 0)]);
        assert_eq!(layout.bends, [vec![], vec![], vec![]]);
        assert!(super::layout(&[], &[]).nodes.is_empty());
    }

    /// Blocks of four branches with skips over them, and one input that all blocks read.
    fn large(blocks: usize) -> (Vec<f32>, Vec<(usize, usize)>) {
        let mut edges = Vec::new();
        for block in 0..blocks {
            let first = 1 + block * 6;
            edges.push((0, first));
            edges.extend((1..5).map(|branch| (first, first + branch)));
            edges.extend((1..5).map(|branch| (first + branch, first + 5)));
            edges.extend([(first, first + 5), (first + 5, first + 6)]);
        }
        (vec![90.0; blocks * 6 + 2], edges)
    }

    #[test]
    fn large_graphs_are_laid_out_without_overlaps() {
        let (widths, edges) = large(900);
        let layout = layout(&widths, &edges);
        let mut rows: std::collections::BTreeMap<i32, Vec<f32>> = std::collections::BTreeMap::new();
        for (x, y) in &layout.nodes {
            assert!(x.is_finite() && *x >= 45.0 && *x <= layout.width - 45.0);
            rows.entry(*y as i32).or_default().push(*x);
        }
        for row in rows.values_mut() {
            row.sort_by(f32::total_cmp);
            assert!(row.windows(2).all(|pair| pair[1] - pair[0] >= 90.0 + GAP - 0.5), "{row:?}");
        }
        // Each node is below what it reads, and the picture does not drift to a side.
        assert!(edges.iter().all(|(from, to)| layout.nodes[*from].1 < layout.nodes[*to].1));
        assert!(layout.width < 2000.0, "{}", layout.width);
    }
}
