import unittest

import app


class Answers(unittest.TestCase):
    def test_the_time_has_three_parts(self):
        self.assertEqual(len(app.answer("api").split(":")), 3)


if __name__ == "__main__":
    unittest.main()
