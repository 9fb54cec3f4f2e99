/*
 * sort-query.cpp - sorts the parameters of the query by name, so that caches behind the gateway see one address instead of many.
 * Parameters with the same name keep their order. No configuration.
 *
 * What C++ needs at the edge stands in plugins/cpp/README.md: no exception may leave a hook, and the library is linked so that it can be
 * unloaded.
 */
#include <algorithm>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "ringway.h"

namespace {

constexpr uint32_t HOOKS = RW_HOOK_REQUEST;
constexpr uint64_t WANTS = RW_WANT_EDIT_REQUEST;

std::string_view text(const rw_span &span) { return {reinterpret_cast<const char *>(rw_bytes(&span)), span.len}; }

/* What one worker keeps, so that after a few requests nothing is allocated. */
struct Core {
  std::vector<std::string_view> parameters;
  std::string target;

  rw_verdict on_request(rw_cx &cx, const rw_request &request) {
    std::string_view path = text(request.path), query = text(request.query);
    /* Absolute targets and `*` are left alone. */
    if (query.find('&') == query.npos || path.empty() || path.front() != '/') return RW_CONTINUE;
    parameters.clear();
    for (size_t at = 0; at <= query.size();) {
      size_t end = std::min(query.find('&', at), query.size());
      parameters.push_back(query.substr(at, end - at));
      at = end + 1;
    }
    auto name = [](std::string_view parameter) { return parameter.substr(0, parameter.find('=')); };
    auto before = [&](std::string_view a, std::string_view b) { return name(a) < name(b); };
    if (std::is_sorted(parameters.begin(), parameters.end(), before)) return RW_CONTINUE;
    std::stable_sort(parameters.begin(), parameters.end(), before);
    target.assign(path);
    char mark = '?';
    for (std::string_view parameter : parameters) {
      target += mark;
      target += parameter;
      mark = '&';
    }
    auto bytes = reinterpret_cast<const uint8_t *>(target.data());
    rw_status status = cx.host->target_set(&cx, bytes, static_cast<uint32_t>(target.size()));
    /* A query without room for its copy goes on as it is. */
    return status == RW_OK || status == RW_ERR_NO_SPACE ? RW_CONTINUE : RW_ABORTED;
  }
};

void log(rw_cx *cx, std::string_view line) noexcept {
  cx->host->log(cx, RW_LOG_ERROR, reinterpret_cast<const uint8_t *>(line.data()), static_cast<uint32_t>(line.size()));
}

/* Nothing is thrown over the edge: a hook that throws becomes RW_ABORTED, with the words of the exception in the log. */
template <typename Event, rw_verdict (Core::*hook)(rw_cx &, const Event &)>
rw_verdict entry(rw_cx *cx, const Event *event) noexcept {
  try {
    return (static_cast<Core *>(cx->core)->*hook)(*cx, *event);
  } catch (const std::exception &error) {
    log(cx, error.what());
  } catch (...) {
    log(cx, "something that is no std::exception was thrown");
  }
  return RW_ABORTED;
}

rw_status core_init(const rw_host *, rw_loader *, void *, uint32_t, void **core) noexcept {
  *core = new (std::nothrow) Core;
  return *core != nullptr ? RW_OK : RW_ERR_NO_SPACE;
}

void core_fini(void *core) noexcept { delete static_cast<Core *>(core); }

RW_DEFINE_NOTE("sort-query", "1.0.0", RW_LANG_CPP, HOOKS, WANTS, 0);

constexpr rw_plugin descriptor() {
  rw_plugin plugin{};
  plugin.size = sizeof(rw_plugin);
  plugin.abi_major = RW_ABI_MAJOR;
  plugin.abi_minor = RW_ABI_MINOR;
  plugin.language = RW_LANG_CPP;
  plugin.layout_fingerprint = RW_LAYOUT_FINGERPRINT;
  plugin.wants = WANTS;
  plugin.hooks = HOOKS;
  plugin.name = "sort-query";
  plugin.version = "1.0.0";
  plugin.core_init = core_init;
  plugin.core_fini = core_fini;
  plugin.on_request = entry<rw_request, &Core::on_request>;
  return plugin;
}

}  // namespace

/* A constant of the file, not something that a constructor fills: `constinit` says so. */
constinit const rw_plugin ringway_plugin_v1 = descriptor();
