// SPDX-License-Identifier: GPL-2.0

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.zip.CRC32;

/** Java's HttpClient as a client of the matrix; ../README.md has the arguments and the output. */
public final class JavaClient {
	private static final String[] SHOWN = {"content-type", "content-length", "x-kind", "etag"};

	private JavaClient() {}

	private static String quote(String text) {
		return '"' + text.replaceAll("[\\\\\"\\p{Cntrl}]", "?") + '"';
	}

	public static void main(String[] args) throws Exception {
		Duration limit = Duration.ofMillis(Long.parseLong(args[0]));
		byte[] big = Files.readAllBytes(Path.of(args[1]));
		for (String target : Arrays.copyOfRange(args, 3, args.length)) {
			String[] parts = target.split("=", 2);
			HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
			for (String request : args[2].split(";")) {
				ask(client, limit, big, parts[0], parts[1], request.split(","));
			}
		}
		// The threads of HttpClient live on.
		System.exit(0);
	}

	private static void ask(HttpClient client, Duration limit, byte[] big, String via, String base, String[] words)
			throws InterruptedException {
		int length = Integer.parseInt(words[3]);
		HttpRequest request = HttpRequest.newBuilder(URI.create(base + words[2]))
				.timeout(limit)
				.expectContinue(words[4].equals("expect"))
				.method(words[1], length > 0
						? HttpRequest.BodyPublishers.ofByteArray(big, 0, length)
						: HttpRequest.BodyPublishers.noBody())
				.build();
		StringBuilder line = new StringBuilder("{\"via\":" + quote(via) + ",\"kind\":" + quote(words[0]));
		long begin = System.nanoTime();
		try {
			HttpResponse<byte[]> response = client.send(request, HttpResponse.BodyHandlers.ofByteArray());
			CRC32 crc = new CRC32();
			crc.update(response.body());
			line.append(",\"status\":" + response.statusCode() + ",\"length\":" + response.body().length
					+ ",\"crc\":" + crc.getValue() + ",\"error\":null,\"headers\":{");
			String comma = "";
			for (String name : SHOWN) {
				String value = response.headers().firstValue(name).orElse(null);
				if (value != null) {
					line.append(comma + quote(name) + ":" + quote(value));
					comma = ",";
				}
			}
			line.append("}");
		} catch (IOException error) {
			line.append(",\"error\":" + quote(error.toString()));
		}
		line.append(",\"ms\":" + (System.nanoTime() - begin) / 1_000_000 + "}");
		System.out.println(line);
	}
}
