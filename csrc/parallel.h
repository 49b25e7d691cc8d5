// The one thread pool: work items taken in order by a few threads, with a way out.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace phi_fast {

// Calls work(item, thread) for every item on `threads` threads. `keep_going` is asked on the calling thread about twenty
// times a second; when it says no, no further item is started. The first exception is thrown again here.
inline void parallel_for(std::size_t items, unsigned threads, const std::function<void(std::size_t, unsigned)>& work,
                         const std::function<bool()>& keep_going) {
    std::atomic<std::size_t> next{0};
    std::atomic<bool> stop{false};
    std::exception_ptr error;
    std::mutex mutex;
    std::condition_variable done;
    unsigned running = threads;
    std::vector<std::thread> pool;
    pool.reserve(threads);
    for (unsigned t = 0; t < threads; ++t) {
        pool.emplace_back([&, t] {
            try {
                for (std::size_t i; !stop.load() && (i = next.fetch_add(1)) < items;) work(i, t);
            } catch (...) {
                std::lock_guard lock(mutex);
                if (!error) error = std::current_exception();
                stop.store(true);
            }
            std::lock_guard lock(mutex);
            --running;
            done.notify_all();
        });
    }
    {
        std::unique_lock lock(mutex);
        while (running > 0) {
            if (done.wait_for(lock, std::chrono::milliseconds(50), [&] { return running == 0; })) break;
            lock.unlock();
            if (!stop.load() && !keep_going()) stop.store(true);
            lock.lock();
        }
    }
    for (std::thread& t : pool) t.join();
    if (error) std::rethrow_exception(error);
}

}  // namespace phi_fast
