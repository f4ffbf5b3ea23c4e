//! Places for episodes at the workers: who waits longest gets the next one, at the worker that has most of them free.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU32},
    time::Instant,
};

use tokio::sync::oneshot;

use super::{frame::Request, throttle::Throttle, worker::Worker};

/// No worker is left, and none will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AllLost;

/// The places of all workers.
#[derive(Debug)]
pub(super) struct Slots {
    per_worker: u32,
    state: Mutex<State>,
    /// Faults of ours since an episode of any request has ended well.
    pub(super) faults: AtomicU32,
}

#[derive(Debug)]
struct State {
    seats: Vec<Seat>,
    /// Whoever waits for a place, longest first. Those who stopped waiting are found when their turn comes.
    waiting: VecDeque<oneshot::Sender<Lease>>,
    generation: u64,
    in_flight: usize,
    throttle: Throttle,
}

/// Where a worker belongs.
#[derive(Debug)]
enum Seat {
    /// Its worker is being started, or started again.
    Empty,
    /// Its worker can be used; these slots are free.
    Taken { worker: Worker, generation: u64, free: Vec<u32> },
    /// It stays empty.
    Lost,
}

#[derive(Debug)]
struct Place {
    worker: Worker,
    seat: usize,
    generation: u64,
    slot: u32,
}

impl Slots {
    /// Places for this many workers, none of which is there yet.
    pub(super) fn new(workers: u32, per_worker: u32) -> Arc<Self> {
        let seats = (0..workers).map(|_| Seat::Empty).collect();
        let state = Mutex::new(State {
            seats,
            waiting: VecDeque::new(),
            generation: 0,
            in_flight: 0,
            throttle: Throttle::default(),
        });
        Arc::new(Self { per_worker, state, faults: AtomicU32::new(0) })
    }

    /// A worker has come.
    pub(super) fn fill(self: &Arc<Self>, seat: usize, worker: Worker) {
        {
            let mut state = self.lock();
            state.generation += 1;
            let generation = state.generation;
            // Slots are taken from the end: low numbers first.
            state.seats[seat] = Seat::Taken { worker, generation, free: (0..self.per_worker).rev().collect() };
        }
        self.serve();
    }

    /// A worker has gone. Another may come.
    pub(super) fn clear(&self, seat: usize) {
        self.lock().seats[seat] = Seat::Empty;
    }

    /// A worker has gone, and no other will come.
    pub(super) fn give_up(&self, seat: usize) {
        let mut state = self.lock();
        state.seats[seat] = Seat::Lost;
        if state.all_lost() {
            state.waiting.clear();
        }
    }

    /// The machine disturbed an episode: fewer are played at a time.
    pub(super) fn disturbed(&self) {
        let mut state = self.lock();
        // The one that was disturbed has left its place already.
        let in_flight = state.in_flight + 1;
        if let Some(limit) = state.throttle.disturbed(Instant::now(), in_flight) {
            tracing::warn!(
                limit,
                "this machine is overloaded: at most {limit} episodes are played at a time until calls are undisturbed"
            );
        }
    }

    /// An episode has ended undisturbed.
    pub(super) fn undisturbed(self: &Arc<Self>) {
        {
            let mut state = self.lock();
            let places = state.seats.len() * self.per_worker as usize;
            state.throttle.undisturbed(places);
        }
        self.serve();
    }

    /// Whether no worker is left and none will come.
    pub(super) fn are_lost(&self) -> bool {
        self.lock().all_lost()
    }

    /// Wait for a place.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Lease, AllLost> {
        let receiver = {
            let mut state = self.lock();
            if state.all_lost() {
                return Err(AllLost);
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back(sender);
            receiver
        };
        self.serve();
        receiver.await.map_err(|_| AllLost)
    }

    /// Give free places to those who wait. The lock is not held while a lease changes hands: dropping one takes it.
    fn serve(self: &Arc<Self>) {
        loop {
            let (place, waiter) = {
                let mut state = self.lock();
                if state.waiting.is_empty() {
                    return;
                }
                let Some(place) = state.take() else { return };
                let Some(waiter) = state.waiting.pop_front() else { return };
                (place, waiter)
            };
            let lease = Lease { slots: self.clone(), place: Some(place), use_: Use::Idle };
            if let Err(mut lease) = waiter.send(lease)
                && let Some(place) = lease.place.take()
            {
                self.lock().put_back(place);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing between lock and unlock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn all_lost(&self) -> bool {
        self.seats.iter().all(|seat| matches!(seat, Seat::Lost))
    }

    fn take(&mut self) -> Option<Place> {
        if !self.throttle.allows(self.in_flight) {
            return None;
        }
        let most_free = self.seats.iter_mut().enumerate().filter_map(|(index, seat)| match seat {
            Seat::Taken { worker, generation, free } if !free.is_empty() && !worker.is_gone() => {
                Some((index, worker, *generation, free))
            }
            _ => None,
        });
        let (seat, worker, generation, free) =
            most_free.max_by_key(|(index, _, _, free)| (free.len(), std::cmp::Reverse(*index)))?;
        let place = Place { worker: worker.clone(), seat, generation, slot: free.pop()? };
        self.in_flight += 1;
        Some(place)
    }

    fn put_back(&mut self, place: Place) {
        self.in_flight -= 1;
        if let Seat::Taken { generation, free, .. } = &mut self.seats[place.seat]
            && *generation == place.generation
        {
            free.push(place.slot);
        }
    }
}

/// Whether the slot holds an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Idle,
    Busy,
}

/// A place, until it is dropped. An episode that is still in it is given up then.
#[derive(Debug)]
pub(super) struct Lease {
    slots: Arc<Slots>,
    /// There until the drop.
    place: Option<Place>,
    use_: Use,
}

impl Lease {
    /// The worker and the slot at it.
    pub(super) fn at(&self) -> (&Worker, u32) {
        let place = self.place.as_ref().expect("a lease holds its place until it is dropped");
        (&place.worker, place.slot)
    }

    /// An episode begins in the slot.
    pub(super) fn begin(&mut self) {
        self.use_ = Use::Busy;
    }

    /// The worker has ended the episode itself.
    pub(super) fn end(&mut self) {
        self.use_ = Use::Idle;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        if self.use_ == Use::Busy {
            // The worker takes requests in order: this comes before the next episode of the slot.
            place.worker.tell(&Request::Close { slot: place.slot });
        }
        self.slots.lock().put_back(place);
        self.slots.serve();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn ready(workers: u32, per_worker: u32) -> Arc<Slots> {
        let slots = Slots::new(workers, per_worker);
        (0..workers as usize).for_each(|seat| slots.fill(seat, Worker::detached().0));
        slots
    }

    /// Seat and slot of a place that is free now.
    fn take(slots: &Arc<Slots>) -> Option<(Lease, usize, u32)> {
        let lease = slots.acquire().now_or_never()?.ok()?;
        let place = lease.place.as_ref()?;
        let (seat, slot) = (place.seat, place.slot);
        Some((lease, seat, slot))
    }

    #[test]
    fn episodes_spread_over_the_workers() {
        let slots = ready(2, 2);
        let leases: Vec<_> = std::iter::from_fn(|| take(&slots)).collect();
        let places: Vec<_> = leases.iter().map(|(_, seat, slot)| (*seat, *slot)).collect();
        assert_eq!(places, [(0, 0), (1, 0), (0, 1), (1, 1)]);
    }

    #[tokio::test]
    async fn who_waits_longest_is_next_and_who_left_is_passed_over() {
        let slots = ready(1, 1);
        let held = take(&slots).unwrap();
        let (mut first, mut left, mut second) =
            (Box::pin(slots.acquire()), Box::pin(slots.acquire()), Box::pin(slots.acquire()));
        for waiting in [&mut first, &mut left, &mut second] {
            assert!(futures::poll!(waiting).is_pending());
        }
        drop(left);
        drop(held);
        assert!(futures::poll!(&mut second).is_pending());
        drop(first.await.unwrap());
        assert!(second.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_place_that_was_given_to_one_who_left_is_not_lost() {
        let slots = ready(1, 1);
        let held = take(&slots).unwrap();
        let mut waiting = Box::pin(slots.acquire());
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(held);
        // The place is on its way to the waiter, who goes without having looked.
        drop(waiting);
        assert!(take(&slots).is_some());
    }

    #[test]
    fn places_at_a_worker_that_died_do_not_come_back() {
        let slots = ready(1, 1);
        let old = take(&slots).unwrap();
        slots.clear(0);
        slots.fill(0, Worker::detached().0);
        let new = take(&slots).unwrap();
        drop(old);
        assert!(take(&slots).is_none());
        drop(new);
        assert!(take(&slots).is_some());
    }

    #[test]
    fn an_overload_leaves_places_free_until_episodes_are_undisturbed() {
        let slots = ready(1, 4);
        let mut leases: Vec<_> = std::iter::from_fn(|| take(&slots)).collect();
        leases.pop();
        slots.disturbed();
        leases.pop();
        assert!(take(&slots).is_none(), "two of four are in flight");
        (0..2).for_each(|_| slots.undisturbed());
        leases.extend(take(&slots));
        assert_eq!(leases.len(), 3);
        (0..3).for_each(|_| slots.undisturbed());
        assert!(take(&slots).is_some());
    }

    #[tokio::test]
    async fn when_all_workers_are_lost_nobody_waits() {
        let slots = Slots::new(2, 1);
        let mut waiting = Box::pin(slots.acquire());
        assert!(futures::poll!(&mut waiting).is_pending());
        slots.give_up(0);
        assert!(futures::poll!(&mut waiting).is_pending());
        slots.give_up(1);
        assert_eq!(waiting.await.unwrap_err(), AllLost);
        assert_eq!(slots.acquire().await.unwrap_err(), AllLost);
    }

    #[test]
    fn an_episode_given_up_is_closed_at_the_worker() {
        let slots = Slots::new(1, 1);
        let (worker, mut asked) = Worker::detached();
        slots.fill(0, worker);
        for ends in [true, false] {
            let (mut lease, ..) = take(&slots).unwrap();
            lease.begin();
            if ends {
                lease.end();
            }
            drop(lease);
            let closed = asked.try_recv().ok().map(|asked| asked.frame);
            assert_eq!(closed, (!ends).then(|| Request::Close { slot: 0 }.to_frame()));
        }
    }
}
