//! `f64` definition of the embedding.

/// `out[n] = weight[ids[n]]`.
pub fn forward(ids: &[u32], weight: &[f64], hidden: usize) -> Vec<f64> {
    ids.iter().flat_map(|&id| &weight[id as usize * hidden..][..hidden]).copied().collect()
}

/// Gradient of the embedding matrix of `vocab` rows for an upstream gradient `dout`.
pub fn backward(dout: &[f64], ids: &[u32], vocab: usize, hidden: usize) -> Vec<f64> {
    let mut dweight = vec![0.0; vocab * hidden];
    for (dout, &id) in dout.chunks(hidden).zip(ids) {
        for (dweight, dout) in dweight[id as usize * hidden..].iter_mut().zip(dout) {
            *dweight += dout;
        }
    }
    dweight
}
