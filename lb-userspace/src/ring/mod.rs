//! x
use std::net::SocketAddr;
/// x
pub struct Member {
    /// x
    pub identity: SocketAddr,
    /// x
    pub weight: u16,
    /// x
    pub index: u16,
}
/// x
pub fn build(_m: &[Member], _s: u32) -> Vec<u16> {
    vec![]
}
