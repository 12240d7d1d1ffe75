import java.io.*;
import java.net.URI;
import java.net.http.*;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.regex.*;

/**
 * Ask an llmsite and print the answer while it comes: java Ask.java PROMPT [IDEMPOTENCY_KEY]
 *
 * <p>LLMSITE_URL and LLMSITE_KEY say where, and in whose name. JDK 17 or newer and nothing else.
 * Ends with 0 when the answer is whole, 1 when it failed or the server stayed away, 2 when the
 * server refused the request.
 */
public class Ask {
  static final int SILENCE = 45; // seconds; a connection is dead: the server speaks every 15
  static final int PATIENCE = 600; // seconds without a piece of text; a model may load for minutes
  static final Set<Integer> LATER = Set.of(409, 429, 502, 503, 504); // may succeed later
  static final String URL =
      Objects.requireNonNullElse(System.getenv("LLMSITE_URL"), "http://127.0.0.1:8000")
          .replaceAll("/+$", "");
  static final PrintStream OUT =
      new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);

  /** Asking again does not help: the answer is whole (status 0), or this is why it is not. */
  static class End extends Exception {
    final int status;

    End(int status, String reason) {
      super(reason);
      this.status = status;
    }
  }

  final HttpClient http =
      HttpClient.newBuilder()
          .version(HttpClient.Version.HTTP_1_1) // nobody needs to be asked for HTTP/2
          .connectTimeout(Duration.ofSeconds(10))
          .build();
  final ExecutorService reading = Executors.newCachedThreadPool();
  final String prompt;
  final String name; // the idempotency key
  String cursor = ""; // the id of the last event that came whole: RESPONSE:CHARACTERS
  int tried = 0;
  long waited = 0;

  Ask(String prompt, String name) {
    this.prompt = prompt;
    this.name = name;
  }

  /** Prints each piece of the answer once, and comes back until there is an end. */
  void ask() throws End, InterruptedException {
    while (true) {
      long wait = Math.min(10_000, 250 * (1 + tried * tried)); // milliseconds
      String lost;
      try {
        var answer = http.send(request(), HttpResponse.BodyHandlers.ofInputStream());
        try (InputStream body = answer.body()) {
          if (answer.statusCode() == 200) read(body);
          if (!LATER.contains(answer.statusCode())) {
            String problem = new String(body.readAllBytes(), StandardCharsets.UTF_8);
            String detail = text(problem, "detail");
            throw new End(2, "refused with " + answer.statusCode() + ": " + detail);
          }
        }
        lost = "status " + answer.statusCode();
        String after = answer.headers().firstValue("Retry-After").orElse("");
        if (after.matches("\\d{1,9}")) wait = Math.max(wait, 1000 * Long.parseLong(after));
      } catch (IOException error) {
        lost = error.toString();
      }
      tried++;
      if ((waited += wait) > 1000 * PATIENCE) {
        throw new End(1, lost + "; the same with the key " + name + " goes on later");
      }
      System.err.println("[" + lost + "; again in " + wait / 1000.0 + " s]");
      Thread.sleep(wait);
    }
  }

  /** Comes back behind the cursor. Without one asks, again too: the name joins what was begun. */
  HttpRequest request() {
    String body = "{\"prompt\": " + quoted(prompt) + ", \"stream\": true}";
    String[] read = cursor.split(":");
    HttpRequest.Builder request =
        read.length == 2
            ? HttpRequest.newBuilder(
                URI.create(URL + "/api/responses/" + read[0] + "/events?after=" + read[1]))
            : HttpRequest.newBuilder(URI.create(URL + "/chat/new/message/"))
                .header("Content-Type", "application/json")
                .header("Idempotency-Key", name)
                .POST(HttpRequest.BodyPublishers.ofString(body));
    return request
        .header("Authorization", "Bearer " + System.getenv("LLMSITE_KEY"))
        .timeout(Duration.ofSeconds(SILENCE)) // until the headers; see `line` for what follows
        .build();
  }

  /** Takes the events that come whole: what is cut off is nothing. Never returns. */
  void read(InputStream body) throws IOException, End, InterruptedException {
    var lines = new BufferedReader(new InputStreamReader(body, StandardCharsets.UTF_8));
    String event = "message", data = "", id = cursor;
    while (true) {
      String line = line(lines, body);
      String[] field = line.split(": ?", 2);
      if (line.isEmpty()) { // the end of an event
        if (!data.isEmpty()) take(event, data);
        cursor = id;
        event = "message";
        data = "";
      } else if (field.length == 2) {
        if (field[0].equals("event")) event = field[1];
        if (field[0].equals("data")) data += field[1] + "\n";
        if (field[0].equals("id")) id = field[1];
      }
    }
  }

  /** The next line. java.net.http waits for it for ever, so somebody else looks at the clock. */
  String line(BufferedReader lines, InputStream body) throws IOException, InterruptedException {
    try {
      String line = reading.submit(lines::readLine).get(SILENCE, TimeUnit.SECONDS);
      if (line == null) throw new EOFException("the stream was cut");
      return line;
    } catch (TimeoutException silence) {
      throw new IOException("silence");
    } catch (ExecutionException cut) {
      throw new IOException("the stream was cut: " + cut.getCause().getMessage());
    }
  }

  void take(String event, String data) throws IOException, End {
    switch (event) {
      case "message":
        OUT.print(text(data, "text"));
        OUT.flush();
        tried = 0;
        waited = 0;
        break;
      case "done":
        throw new End(0, text(data, "finish_reason"));
      case "error": // `internal_error` is of the stream; the response itself may be well
        String reason = text(data, "detail");
        if (text(data, "code").equals("internal_error")) throw new IOException(reason);
        throw new End(1, reason);
      default: // accepted, queued, and what a later server may say
    }
  }

  /** The text that a JSON object has under this name. With Jackson or Gson this is one call. */
  static String text(String json, String name) {
    Matcher found = Pattern.compile("\"" + name + "\"\\s*:\\s*\"").matcher(json);
    if (!found.find()) return "";
    StringBuilder text = new StringBuilder();
    for (int at = found.end(); json.charAt(at) != '"'; at++) {
      char here = json.charAt(at);
      if (here == '\\') {
        here = json.charAt(++at);
        int known = "bfnrt".indexOf(here);
        if (known >= 0) here = "\b\f\n\r\t".charAt(known);
        if (here == 'u') {
          here = (char) Integer.parseInt(json.substring(at + 1, at + 5), 16);
          at += 4;
        }
      }
      text.append(here);
    }
    return text.toString();
  }

  /** A text as JSON. */
  static String quoted(String text) {
    StringBuilder json = new StringBuilder("\"");
    for (char here : text.toCharArray()) {
      if (here == '"' || here == '\\') json.append('\\').append(here);
      else if (here < ' ') json.append(String.format("\\u%04x", (int) here));
      else json.append(here);
    }
    return json.append('"').toString();
  }

  public static void main(String[] args) throws InterruptedException {
    if (args.length != 1 && args.length != 2) {
      System.err.println("usage: java Ask.java PROMPT [IDEMPOTENCY_KEY]");
      System.exit(2);
    }
    // A name of your own, kept with what you ask for, finds the answer after a crash of yours, too.
    String name = args.length == 2 ? args[1] : UUID.randomUUID().toString();
    try {
      new Ask(args[0], name).ask();
    } catch (End end) {
      OUT.println();
      // `length`: max_tokens were not enough; `cancelled`: somebody stopped it
      if (!end.getMessage().equals("stop")) System.err.println("[" + end.getMessage() + "]");
      System.exit(end.status);
    }
  }
}
