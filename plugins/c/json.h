/*
 * json.h - reads the configuration of a plugin: one pass over RFC 8259 text, no allocation, no copy of the document.
 *
 * The caller walks the document in the order in which it stands:
 *
 *     json j = json_over(config, config_len);
 *     json_text key;
 *     bool trust = false;
 *     json_begin_object(&j);
 *     while (json_next_key(&j, &key)) {
 *       if (json_is(&key, "trust")) json_bool(&j, &trust);
 *       else json_fail(&j, "unknown key");
 *     }
 *     if (!json_end(&j)) ... j.fault says what is wrong, j.at where
 *
 * The first fault sticks: every later call does nothing and returns false. So a caller checks once, at the end.
 * A nested value is read where it stands: json_begin_object or json_begin_array after json_next_key or json_next_element.
 */
#ifndef RINGWAY_PLUGINS_JSON_H
#define RINGWAY_PLUGINS_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { JSON_TEXT_BYTES_MAX = 255, JSON_DEPTH_MAX = 32 };

/* A string or key, unescaped to UTF-8 and NUL-terminated. A string with U+0000 in it is a fault. */
typedef struct json_text {
  size_t len;
  char bytes[JSON_TEXT_BYTES_MAX + 1];
} json_text;

typedef struct json {
  const uint8_t *start;
  const uint8_t *at;
  const uint8_t *end;
  const char *fault; /* NULL while all is well */
  unsigned depth;
  bool first; /* the next element is the first of its array or object */
} json;

static inline json json_over(const uint8_t *bytes, size_t len) {
  return (json){.start = bytes, .at = bytes, .end = bytes + len, .fault = NULL, .depth = 0, .first = false};
}

/* Notes the first fault; always false. */
static inline bool json_fail(json *j, const char *fault) {
  if (j->fault == NULL) j->fault = fault;
  return false;
}

/* The line of the fault, from 1. */
static inline unsigned json_line(const json *j) {
  unsigned line = 1;
  for (const uint8_t *p = j->start; p < j->at; p++) line += *p == '\n';
  return line;
}

static inline bool json_is(const json_text *text, const char *word) { return strcmp(text->bytes, word) == 0; }

/* The next byte that is no blank, 0 at the end. Does not consume it. */
static inline uint8_t json_peek(json *j) {
  while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r')) j->at++;
  return j->at < j->end ? *j->at : 0;
}

static inline bool json_take(json *j, uint8_t byte, const char *fault) {
  if (j->fault != NULL) return false;
  if (json_peek(j) != byte || j->at == j->end) return json_fail(j, fault);
  j->at++;
  return true;
}

static inline bool json_open(json *j, uint8_t bracket, const char *fault) {
  if (!json_take(j, bracket, fault)) return false;
  if (++j->depth > JSON_DEPTH_MAX) return json_fail(j, "nested too deeply");
  j->first = true;
  return true;
}

static inline bool json_begin_object(json *j) { return json_open(j, '{', "expected an object"); }

static inline bool json_begin_array(json *j) { return json_open(j, '[', "expected an array"); }

/* Steps over the comma or the closing bracket; false when the array or object is over. */
static inline bool json_more(json *j, uint8_t bracket) {
  if (j->fault != NULL) return false;
  bool first = j->first;
  j->first = false;
  if (json_peek(j) == bracket) {
    j->at++;
    j->depth--;
    return false;
  }
  return first || json_take(j, ',', bracket == ']' ? "expected ',' or ']'" : "expected ',' or '}'");
}

/* True when an element follows; read it next. */
static inline bool json_next_element(json *j) { return json_more(j, ']'); }

static inline bool json_hex4(json *j, uint32_t *unit) {
  if (j->end - j->at < 4) return json_fail(j, "\\u needs four hexadecimal digits");
  *unit = 0;
  for (int i = 0; i < 4; i++, j->at++) {
    uint8_t c = *j->at, lower = c | 0x20;
    if (c >= '0' && c <= '9') *unit = *unit << 4 | (uint32_t)(c - '0');
    else if (lower >= 'a' && lower <= 'f') *unit = *unit << 4 | (uint32_t)(lower - 'a' + 10);
    else return json_fail(j, "\\u needs four hexadecimal digits");
  }
  return true;
}

/* After "\u": one code point, from a surrogate pair if need be. */
static inline bool json_code_point(json *j, uint32_t *point) {
  uint32_t low;
  if (!json_hex4(j, point)) return false;
  if (*point == 0) return json_fail(j, "U+0000 in a string");
  if (*point >= 0xdc00 && *point <= 0xdfff) return json_fail(j, "half of a surrogate pair");
  if (*point < 0xd800 || *point > 0xdbff) return true;
  if (j->end - j->at < 2 || j->at[0] != '\\' || j->at[1] != 'u') return json_fail(j, "half of a surrogate pair");
  j->at += 2;
  if (!json_hex4(j, &low)) return false;
  if (low < 0xdc00 || low > 0xdfff) return json_fail(j, "half of a surrogate pair");
  *point = 0x10000 + ((*point - 0xd800) << 10 | (low - 0xdc00));
  return true;
}

static inline bool json_put(json *j, json_text *text, uint8_t byte) {
  if (text->len >= JSON_TEXT_BYTES_MAX) return json_fail(j, "a string is longer than 255 bytes");
  text->bytes[text->len++] = (char)byte;
  return true;
}

static inline bool json_put_code_point(json *j, json_text *text, uint32_t c) {
  if (c < 0x80) return json_put(j, text, (uint8_t)c);
  if (c < 0x800) return json_put(j, text, (uint8_t)(0xc0 | c >> 6)) && json_put(j, text, (uint8_t)(0x80 | (c & 0x3f)));
  if (c >= 0x10000) {
    if (!json_put(j, text, (uint8_t)(0xf0 | c >> 18)) || !json_put(j, text, (uint8_t)(0x80 | (c >> 12 & 0x3f)))) return false;
  } else if (!json_put(j, text, (uint8_t)(0xe0 | c >> 12))) {
    return false;
  }
  return json_put(j, text, (uint8_t)(0x80 | (c >> 6 & 0x3f))) && json_put(j, text, (uint8_t)(0x80 | (c & 0x3f)));
}

static inline bool json_escape(json *j, json_text *text) {
  static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
  if (j->at == j->end) return json_fail(j, "a string does not end");
  uint8_t c = *j->at++;
  if (c == 'u') {
    uint32_t point;
    return json_code_point(j, &point) && json_put_code_point(j, text, point);
  }
  const char *found = c != 0 ? strchr(escapes, c) : NULL;
  if (found == NULL) return json_fail(j, "unknown escape in a string");
  return json_put(j, text, (uint8_t)meanings[found - escapes]);
}

/* Raw bytes above 0x7f pass as they are: the gateway hands over valid UTF-8. */
static inline bool json_string(json *j, json_text *text) {
  text->len = 0;
  text->bytes[0] = '\0';
  if (!json_take(j, '"', "expected a string")) return false;
  while (j->at < j->end) {
    uint8_t c = *j->at++;
    if (c == '"') {
      text->bytes[text->len] = '\0';
      return true;
    }
    if (c < 0x20) return json_fail(j, "a control character in a string");
    if (!(c == '\\' ? json_escape(j, text) : json_put(j, text, c))) return false;
  }
  return json_fail(j, "a string does not end");
}

/* The next key of an object, with its colon; false when the object is over. */
static inline bool json_next_key(json *j, json_text *key) {
  return json_more(j, '}') && json_string(j, key) && json_take(j, ':', "expected ':'");
}

static inline bool json_word(json *j, const char *word) {
  size_t len = strlen(word);
  if (j->fault != NULL || json_peek(j) == 0 || (size_t)(j->end - j->at) < len || memcmp(j->at, word, len) != 0) return false;
  j->at += len;
  return true;
}

static inline bool json_bool(json *j, bool *value) {
  if (json_word(j, "true")) return *value = true;
  if (json_word(j, "false")) {
    *value = false;
    return true;
  }
  return json_fail(j, "expected true or false");
}

/* A whole number from 0 to 2^64-1, without fraction or exponent. */
static inline bool json_u64(json *j, uint64_t *value) {
  if (j->fault != NULL) return false;
  uint8_t c = json_peek(j);
  if (c < '0' || c > '9') return json_fail(j, "expected a whole number");
  *value = 0;
  const uint8_t *first = j->at;
  for (; j->at < j->end && *j->at >= '0' && *j->at <= '9'; j->at++) {
    uint64_t digit = (uint64_t)(*j->at - '0');
    if (*value > (UINT64_MAX - digit) / 10) return json_fail(j, "a number is too large");
    *value = *value * 10 + digit;
  }
  if (j->at - first > 1 && *first == '0') return json_fail(j, "a number begins with 0");
  if (j->at < j->end && (*j->at == '.' || (*j->at | 0x20) == 'e')) return json_fail(j, "expected a whole number");
  return true;
}

/* True when the whole document was read without a fault and nothing follows it. */
static inline bool json_end(json *j) {
  if (j->fault != NULL) return false;
  if (j->depth != 0) return json_fail(j, "the document does not end");
  json_peek(j);
  return j->at == j->end || json_fail(j, "something follows the document");
}

#endif /* RINGWAY_PLUGINS_JSON_H */
