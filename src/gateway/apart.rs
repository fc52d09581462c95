//! Work on large messages that takes a while, kept from holding up the small ones of others.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Below this it is over before anybody could notice.
const LARGE: usize = 2 << 20;

/// Does work on so many bytes. For many of them the thread first hands over everybody else it serves.
pub(super) fn apart<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let several =
        || Handle::try_current().is_ok_and(|now| now.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes >= LARGE && several() {
        block_in_place(work)
    } else {
        work()
    }
}

/// Bytes after which a connection lets others go first.
pub(super) const TURN: usize = 256 << 10;

/// After a long turn at a socket that always has or takes more: others go first.
pub(super) async fn others_first(long: bool) {
    if long {
        tokio::task::yield_now().await;
    }
}
