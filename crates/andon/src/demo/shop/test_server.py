"""What the shop answers over HTTP, asked of a running one."""

import http.client
import json
import threading
import unittest

from shop import server


class ServerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server.Server(0)
        threading.Thread(target=cls.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.server.server_close()
        assert cls.server.working.wait(5)

    def ask(self, path, method="GET", body=None):
        connection = http.client.HTTPConnection(*self.server.server_address, timeout=5)
        connection.request(method, path, body)
        said = connection.getresponse()
        value = json.loads(said.read())
        connection.close()
        return said.status, value

    def test_it_is_healthy(self):
        self.assertEqual(self.ask("/healthz"), (200, {"ok": True}))

    def test_the_front_page_lists_the_items(self):
        status, page = self.ask("/")
        self.assertEqual((status, page["items"][0]), (200, "mug"))

    def test_a_price_can_be_asked_for(self):
        self.assertEqual(self.ask("/price?item=pen&count=3")[1]["price"], 8.40)

    def test_an_order_is_taken(self):
        status, paid = self.ask("/checkout?item=poster&count=1&region=fr", "POST", b"{}")
        self.assertEqual((status, paid["total"]), (200, 19.15))

    def test_what_is_not_there_is_said_so(self):
        self.assertEqual(self.ask("/price?item=boat")[0], 404)
        self.assertEqual(self.ask("/nowhere")[0], 404)

    def test_a_mistake_of_the_shop_is_a_500_and_not_a_silence(self):
        self.assertEqual(self.ask("/price?count=many")[0], 500)
