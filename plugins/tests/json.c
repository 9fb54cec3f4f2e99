/*
 * json.c - the table of json.h: documents that it must take and documents that it must refuse.
 *
 * Each document is read from an allocation of exactly its length, so that the sanitizer sees a step too far.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../c/json.h"

static int failures;

/* Reads {"flag": BOOL, "number": U64, "text": STRING, "list": [STRING...], "object": {"number": U64}} in any order. */
typedef struct config {
  bool flag;
  uint64_t number;
  json_text text;
  unsigned list_count;
  json_text last;
} config;

static bool read_config(json *j, config *c) {
  json_text key, element;
  json_begin_object(j);
  while (json_next_key(j, &key)) {
    if (json_is(&key, "flag")) json_bool(j, &c->flag);
    else if (json_is(&key, "number")) json_u64(j, &c->number);
    else if (json_is(&key, "text")) json_string(j, &c->text);
    else if (json_is(&key, "object")) read_config(j, c);
    else if (json_is(&key, "list")) {
      json_begin_array(j);
      while (json_next_element(j) && json_string(j, &element)) {
        c->list_count++;
        c->last = element;
      }
    } else json_fail(j, "unknown key");
  }
  return j->fault == NULL;
}

static config parse(const char *document, const char **fault) {
  config c = {0};
  size_t len = strlen(document);
  uint8_t *exact = malloc(len + (len == 0));
  memcpy(exact, document, len);
  json j = json_over(exact, len);
  read_config(&j, &c);
  json_end(&j);
  *fault = j.fault;
  free(exact);
  return c;
}

static void check(bool good, const char *what, const char *document) {
  if (good) return;
  failures++;
  printf("FAILED: %s: %s\n", what, document);
}

static config accept(const char *document) {
  const char *fault;
  config c = parse(document, &fault);
  check(fault == NULL, fault != NULL ? fault : "", document);
  return c;
}

static void refuse(const char *document, const char *reason) {
  const char *fault;
  parse(document, &fault);
  check(fault != NULL && strstr(fault, reason) != NULL, fault != NULL ? fault : "was taken", document);
}

static void text_is(const char *document, const char *expected) {
  config c = accept(document);
  check(c.text.len == strlen(expected) && strcmp(c.text.bytes, expected) == 0, "another text", document);
}

static void accepts(void) {
  accept("{}");
  accept(" \t\r\n{ \n } \n");
  check(accept("{\"flag\":true}").flag, "flag", "");
  check(!accept("{\"flag\": false}").flag, "flag", "");
  check(accept("{\"number\":0}").number == 0, "number", "");
  check(accept("{\"number\": 18446744073709551615 }").number == UINT64_MAX, "number", "");
  config c = accept("{\"list\": [\"a\", \"b\" ,\"c\"], \"flag\": true, \"object\": {\"number\": 7}, \"text\": \"x\"}");
  check(c.list_count == 3 && json_is(&c.last, "c") && c.flag && c.number == 7 && json_is(&c.text, "x"), "all together", "");
  check(accept("{\"list\":[]}").list_count == 0, "empty list", "");
  text_is("{\"text\": \"\"}", "");
  text_is("{\"text\": \"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", "\"\\/\b\f\n\r\t");
  text_is("{\"text\": \"\\u0041\\u00e9\\u20AC\"}", "A\xc3\xa9\xe2\x82\xac");
  text_is("{\"text\": \"\\ud83d\\ude00\"}", "\xf0\x9f\x98\x80");
  text_is("{\"text\": \"\xc3\xa9\"}", "\xc3\xa9");
  text_is("{\"\\u0074ext\": \"key\"}", "key");
}

static void refuses(void) {
  refuse("", "expected an object");
  refuse("[]", "expected an object");
  refuse("{", "expected a string");
  refuse("{\"flag\"", "expected ':'");
  refuse("{\"flag\":", "expected true or false");
  refuse("{\"flag\":tru", "expected true or false");
  refuse("{\"flag\":truex}", "expected ',' or '}'");
  refuse("{\"flag\":true,}", "expected a string");
  refuse("{,\"flag\":true}", "expected a string");
  refuse("{\"flag\":true", "expected ',' or '}'");
  refuse("{\"flag\":true \"number\":1}", "expected ',' or '}'");
  refuse("{flag:true}", "expected a string");
  refuse("{'flag':true}", "expected a string");
  refuse("{} x", "something follows");
  refuse("{}{}", "something follows");
  refuse("{\"number\":-1}", "whole number");
  refuse("{\"number\":01}", "begins with 0");
  refuse("{\"number\":1.0}", "whole number");
  refuse("{\"number\":1e3}", "whole number");
  refuse("{\"number\":18446744073709551616}", "too large");
  refuse("{\"number\":99999999999999999999999}", "too large");
  refuse("{\"number\":\"1\"}", "whole number");
  refuse("{\"list\":[\"a\",]}", "expected a string");
  refuse("{\"list\":[,\"a\"]}", "expected a string");
  refuse("{\"list\":[\"a\" \"b\"]}", "expected ',' or ']'");
  refuse("{\"list\":[\"a\"}", "expected ',' or ']'");
  refuse("{\"list\":[1]}", "expected a string");
  refuse("{\"list\":[\"a\"", "expected ',' or ']'");
  refuse("{\"text\": \"a", "does not end");
  refuse("{\"text\": \"a\\", "does not end");
  refuse("{\"text\": \"a\nb\"}", "control character");
  refuse("{\"text\": \"\\x\"}", "unknown escape");
  refuse("{\"text\": \"\\u12\"}", "four hexadecimal digits");
  refuse("{\"text\": \"\\u00", "four hexadecimal digits");
  refuse("{\"text\": \"\\u0000\"}", "U+0000");
  refuse("{\"text\": \"\\ud83d\"}", "surrogate");
  refuse("{\"text\": \"\\ud83d\\u0041\"}", "surrogate");
  refuse("{\"text\": \"\\ude00\"}", "surrogate");
  refuse("{\"other\": 1}", "unknown key");
}

static void bounds(void) {
  char document[4096];
  snprintf(document, sizeof document, "{\"text\": \"%0255d\"}", 0);
  check(accept(document).text.len == 255, "255 bytes fit", "");
  snprintf(document, sizeof document, "{\"text\": \"%0256d\"}", 0);
  refuse(document, "longer than 255");
  size_t len = 0;
  for (int i = 0; i < JSON_DEPTH_MAX + 1; i++) len += (size_t)snprintf(document + len, sizeof document - len, "{\"object\":");
  refuse(document, "too deeply");
}

int main(void) {
  accepts();
  refuses();
  bounds();
  if (failures != 0) return 1;
  puts("all documents as expected");
  return 0;
}
